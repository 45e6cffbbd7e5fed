"""`POST /messages`: checks what OpenRouter checks, makes the answer, and opens its bill."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from opensvm.sandbox import answers
from opensvm.sandbox.answers import Answer
from opensvm.sandbox.cache import PromptCache
from opensvm.sandbox.catalogue import Model, Usage
from opensvm.sandbox.errors import PROVIDER, body_error_in_200, stream_error
from opensvm.sandbox.keys import SandboxKey
from opensvm.sandbox.ledger import Generation, Ledger, Meter
from opensvm.sandbox.money import decimal_text, nano_of, number, usd
from opensvm.sandbox.reply import Part, Reply, json_reply, stream_reply
from opensvm.sandbox.script import Behaviour

DEFAULT_MAX_TOKENS = 4096
ID_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOKEN_FIELDS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_write_5m",
}


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request: who asks what, and how the script wants it answered."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    key: SandboxKey
    model: Model
    behaviour: Behaviour
    now: dt.datetime
    cancellable: bool

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True


# -- Checks ----------------------------------------------------------------------------------------------------------


def find_fault(body: Any) -> str:
    """What is wrong with the body, in OpenRouter's manner; nothing when it is fine."""
    if not isinstance(body, dict):
        return "Input should be a valid JSON object"
    if not isinstance(body.get("model"), str) or not body["model"]:
        return "model: Field required"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: Input should be a non-empty array"
    for index, message in enumerate(messages):
        if fault := _message_fault(message):
            return f"messages.{index}{fault}"
    return _option_fault(body)


def _message_fault(message: Any) -> str:
    if not isinstance(message, dict):
        return ": Input should be an object"
    if message.get("role") not in ("user", "assistant", "system"):
        return ".role: Input should be 'user', 'assistant' or 'system'"
    if not isinstance(message.get("content"), str | list):
        return ".content: Input should be a string or an array of blocks"
    return ""


def _option_fault(body: dict[str, Any]) -> str:
    max_tokens = body.get("max_tokens")
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 0):
        return "max_tokens: Input should be a non-negative integer"
    if body.get("stream") not in (None, True, False):
        return "stream: Input should be a boolean"
    if body.get("models") is not None and body.get("fallbacks") is not None:
        return "models and fallbacks can't be used together"
    if not _is_list_of(body.get("stop_sequences"), str):
        return "stop_sequences: Input should be an array of strings"
    if not _is_list_of(body.get("tools"), dict):
        return "tools: Input should be an array of objects"
    session_id = body.get("session_id")
    if session_id is not None and (not isinstance(session_id, str) or len(session_id) > 256):
        return "session_id: Input should be a string of at most 256 characters"
    return ""


def _is_list_of(value: Any, kind: type) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, kind) for item in value))


def find_shortage(key: SandboxKey, ledger: Ledger, model: Model, max_tokens: int, now: dt.datetime) -> str:
    """The name of the error when the key's limit or its account's credit does not cover the request."""
    remaining = key.remaining_nano(ledger, now.date())
    if remaining is not None and remaining <= 0:
        return f"key_limit_{key.limit_reset}" if key.limit_reset else "key_limit"
    worst = model.cost_nano(Usage(output=max_tokens))
    if remaining is not None and worst > remaining:
        return "key_limit_402"
    credit = key.account.credit_nano
    if credit is None:
        return ""
    left = credit - ledger.spent_by_account(key.account.name)
    if left <= 0:
        return "out_of_credit"
    return "cannot_afford" if worst > left else ""


# -- The answer ------------------------------------------------------------------------------------------------------


def answer_order(order: Order, ledger: Ledger, cache: PromptCache) -> Reply:
    """The reply to a good request. Its generation is open in the ledger; whoever sends the reply settles it."""
    answer, cost_nano = make_answer(order, cache)
    meter = open_meter(order, ledger, answer, cost_nano)
    headers = {"X-Generation-Id": answer.id}
    match order.behaviour.error:
        case "error_in_200":
            meter.fail(0, order.now)
            return json_reply(body_error_in_200(), headers=headers)
        case "error_first_event":
            meter.fail(0, order.now)
            return stream_reply([answers.COMMENT, answers.event("error", stream_error())], headers)
        case "error_mid_stream":
            parts = _until_error(answer, order.behaviour)
            return stream_reply(parts, headers, replace(meter, finish_reason="error"))
    if order.streams:
        return stream_reply(answers.stream(answer, order.behaviour.deltas), headers, meter)
    reply = json_reply(answers.message(answer), headers=headers)
    bill = replace(reply.parts[0], output_tokens=answer.usage.output, settles=True)
    return replace(reply, parts=(bill,), meter=meter)


def _until_error(answer: Answer, behaviour: Behaviour) -> list[Part]:
    """The first events of the stream, then an `error` event and nothing more."""
    parts: list[Part] = []
    events = 0
    for part in answers.stream(answer, behaviour.deltas):
        if events == behaviour.error_after_events or part.settles:
            break
        events += part.event != "comment"
        parts.append(part)
    return [*parts, answers.event("error", stream_error())]


def make_answer(order: Order, cache: PromptCache) -> tuple[Answer, int]:
    """The answer and its whole cost in nano-USD."""
    body, behaviour = order.body, order.behaviour
    stops = body.get("stop_sequences") or []
    composed = answers.compose(body, behaviour)
    if behaviour.content is not None or behaviour.text_length is not None:
        stops, room = [], None
    else:
        room = body.get("max_tokens")
    content, stop_reason, stop_sequence = answers.limit(composed, room, stops)
    usage = _count(order, content, cache)
    cost_text = decimal_text(order.model.cost_nano(usage)) if behaviour.cost is None else behaviour.cost
    answer = Answer(
        id=new_generation_id(order.now),
        model=behaviour.model or order.model.canonical,
        content=content,
        stop_reason=behaviour.stop_reason or stop_reason,
        stop_sequence=stop_sequence,
        usage=usage,
        wire_usage=wire_usage(usage, cost_text, behaviour.usage),
        metadata=_metadata(order),
    )
    return answer, nano_of(cost_text)


def _metadata(order: Order) -> dict[str, Any] | None:
    if order.headers.get("x-openrouter-metadata") != "enabled":
        return None
    return {"requested": order.body["model"], "provider": PROVIDER, "region": "sandbox", "attempt": 1}


def _count(order: Order, content: tuple[answers.Block, ...], cache: PromptCache) -> Usage:
    """Tokens of the prompt and of `content`, with what the script overrides."""
    usage = cache.price_prompt(order.body, owner=f"{order.key.account.name} {order.model.id}", now=order.now)
    thinking = sum(answers.tokens_in(answers.block_text(block)) for block in content if block.get("type") == "thinking")
    output = sum(answers.tokens_in(answers.block_text(block)) for block in content)
    counted = replace(usage, output=output, thinking=thinking)
    given = {TOKEN_FIELDS[name]: value for name, value in order.behaviour.usage.items() if name in TOKEN_FIELDS}
    return replace(counted, **{name: value for name, value in given.items() if isinstance(value, int)})


def wire_usage(usage: Usage, cost_text: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """As the answer shows it; an override of None takes the field out."""
    shown: dict[str, Any] = {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens_details": {"thinking_tokens": usage.thinking},
        "server_tool_use": None,
        "service_tier": "standard",
        "cost": number(cost_text),
        "cost_details": {
            "upstream_inference_cost": number(cost_text),
            "upstream_inference_prompt_cost": usd(0),
            "upstream_inference_completions_cost": number(cost_text),
        },
        "is_byok": False,
        **overrides,
    }
    return {name: value for name, value in shown.items() if name not in overrides or value is not None}


def new_generation_id(now: dt.datetime) -> str:
    random = "".join(secrets.choice(ID_ALPHABET) for _ in range(20))
    return f"gen-{int(now.timestamp())}-{random}"


def open_meter(order: Order, ledger: Ledger, answer: Answer, cost_nano: int) -> Meter:
    body, key, behaviour = order.body, order.key, order.behaviour
    generation = Generation(
        id=answer.id,
        key_hash=key.hash,
        key_name=key.name,
        key_tail=key.tail,
        account=key.account.name,
        model=order.model.id,
        streamed=order.streams,
        created_at=order.now,
        session_id=str(body.get("session_id") or order.headers.get("x-session-id", "")),
        user=str(body.get("user") or ""),
        referer=order.headers.get("http-referer", ""),
        user_agent=order.headers.get("user-agent", ""),
    )
    meter = Meter(
        ledger=ledger,
        generation=generation,
        model=order.model,
        usage=answer.usage,
        cost_nano=cost_nano,
        finish_reason=answer.stop_reason,
        cancellable=order.cancellable if behaviour.cancellable is None else behaviour.cancellable,
        bill=behaviour.bill,
    )
    meter.begin()
    return meter


def generation_record(generation: Generation) -> dict[str, Any]:
    """`data` of `GET /generation`."""
    usage = generation.usage
    settled = generation.settled_at or generation.created_at
    prompt = usage.input + usage.cache_read + usage.cache_write
    return {
        "id": generation.id,
        "total_cost": usd(generation.cost_nano),
        "usage": usd(generation.cost_nano),
        "upstream_inference_cost": None,
        "is_byok": False,
        "cache_discount": None,
        "tokens_prompt": prompt,
        "tokens_completion": usage.output,
        "native_tokens_prompt": prompt,
        "native_tokens_completion": usage.output,
        "native_tokens_reasoning": usage.thinking,
        "native_tokens_cached": usage.cache_read,
        "native_tokens_completion_images": None,
        "model": generation.model,
        "provider_name": PROVIDER,
        "streamed": generation.streamed,
        "cancelled": generation.cancelled,
        "finish_reason": generation.finish_reason or None,
        "native_finish_reason": generation.finish_reason or None,
        "latency": 1,
        "generation_time": int((settled - generation.created_at).total_seconds() * 1000),
        "moderation_latency": None,
        "created_at": generation.created_at.isoformat(),
        "origin": generation.referer,
        "http_referer": generation.referer or None,
        "user_agent": generation.user_agent or None,
        "session_id": generation.session_id or None,
        "external_user": generation.user or None,
        "api_type": "messages",
        "app_id": None,
        "upstream_id": None,
        "request_id": None,
        "router": None,
        "provider_responses": [],
        "data_region": "global",
        "service_tier": "standard",
        "preset_id": None,
    }
