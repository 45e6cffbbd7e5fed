"""`POST /chat/completions`: the same answers, bills and faults as `/messages`, written in OpenAI's shapes.

A request is put into the terms of `/messages`, answered there, and its answer is written as a completion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from opensvm.sandbox import answers
from opensvm.sandbox.answers import Answer, Block
from opensvm.sandbox.cache import PromptCache
from opensvm.sandbox.errors import PROVIDER, Failed, body_error_in_200
from opensvm.sandbox.ledger import Ledger
from opensvm.sandbox.messages import Order, make_answer, open_meter
from opensvm.sandbox.money import dump
from opensvm.sandbox.reply import Part, Reply, json_reply, stream_reply

PATH = "/chat/completions"
DONE = Part(b"data: [DONE]\n\n", "done")
ROLES = ("system", "developer", "user", "assistant", "tool")
_FINISH_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
_STREAM_ERROR = ("Sandbox provider disconnected", 502)


def as_shape_b(failed: Failed) -> Failed:
    """The same failure as this endpoint writes it."""
    if failed.shape != "A":
        return failed
    kind = {"error_type": failed.error_type} if failed.error_type else {}
    return replace(failed, shape="B", metadata={**kind, **failed.metadata})


# -- The request -----------------------------------------------------------------------------------------------------


def find_fault(body: Any) -> str:
    """What is wrong with the body; nothing when it is fine."""
    if not isinstance(body, dict):
        return "Input should be a valid JSON object"
    if not isinstance(body.get("model"), str) or not body["model"]:
        return "model: Field required"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: Input should be a non-empty array"
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"messages.{index}.role: Input should be one of {', '.join(ROLES)}"
        if not isinstance(message.get("content"), str | list) and not message.get("tool_calls"):
            return f"messages.{index}.content: Input should be a string or an array of parts"
    return ""


def max_tokens_of(body: dict[str, Any]) -> int | None:
    value = body.get("max_completion_tokens") or body.get("max_tokens")
    return value if isinstance(value, int) else None


def as_messages(body: dict[str, Any]) -> dict[str, Any]:
    """The body in the terms of `/messages`."""
    changed: dict[str, Any] = {
        "messages": [{**message, "content": message.get("content") or ""} for message in body["messages"]],
        "tools": [_tool(tool) for tool in body.get("tools") or []],
        "tool_choice": _tool_choice(body.get("tool_choice")),
        "max_tokens": max_tokens_of(body),
        "stop_sequences": _stops(body.get("stop")),
        "thinking": {"type": "enabled"} if body.get("reasoning") else None,
    }
    return {**body, **changed}


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function", {}) if isinstance(tool, dict) else {}
    return {"name": function.get("name", "tool"), "input_schema": function.get("parameters") or {}}


def _tool_choice(choice: Any) -> dict[str, Any] | None:
    if choice == "required":
        return {"type": "any"}
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"type": "tool", "name": choice["function"].get("name")}
    return None


def _stops(stop: Any) -> list[str]:
    return [stop] if isinstance(stop, str) else list(stop or [])


# -- The answer ------------------------------------------------------------------------------------------------------


def answer_order(order: Order, ledger: Ledger, cache: PromptCache) -> Reply:
    """The reply to a good request. `order.body` is in the terms of `/messages`."""
    answer, cost_nano = make_answer(order, cache)
    meter = open_meter(order, ledger, answer, cost_nano)
    headers = {"X-Generation-Id": answer.id}
    match order.behaviour.error:
        case "error_in_200":
            meter.fail(0, order.now)
            return json_reply(body_error_in_200(), headers=headers)
        case "error_first_event":
            meter.fail(0, order.now)
            return stream_reply([answers.COMMENT, _error_chunk(answer)], headers)
        case "error_mid_stream":
            parts = _until_error(answer, order)
            return stream_reply(parts, headers, replace(meter, finish_reason="error"))
    if order.streams:
        return stream_reply(stream(answer, order), headers, meter)
    reply = json_reply(completion(answer, order), headers=headers)
    bill = replace(reply.parts[0], output_tokens=answer.usage.output, settles=True)
    return replace(reply, parts=(bill,), meter=meter)


def completion(answer: Answer, order: Order) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _texts(answer.content, "text") or None, "refusal": None}
    if thought := _texts(answer.content, "thinking"):
        message["reasoning"] = thought
    if calls := _tool_calls(answer.content):
        message["tool_calls"] = calls
    choice = {"index": 0, "logprobs": None, "message": message, **_finish(answer)}
    return {**_head(answer, "chat.completion"), "choices": [choice], "usage": wire_usage(answer, order)}


def stream(answer: Answer, order: Order) -> Iterator[Part]:
    """Role first, then deltas, then the chunk that finishes it, then the bill, then `[DONE]`."""
    yield answers.COMMENT
    yield _chunk(answer, {"role": "assistant", "content": ""})
    made = 0
    for block in answer.content:
        for delta, tokens in _deltas(block, order.behaviour.deltas):
            made = min(made + tokens, answer.usage.output)
            yield _chunk(answer, delta, output_tokens=made)
    yield _chunk(answer, {"content": ""}, finish=_finish(answer), output_tokens=answer.usage.output)
    bill = {**_head(answer, "chat.completion.chunk"), "choices": [], "usage": wire_usage(answer, order)}
    yield Part(b"data: " + dump(bill) + b"\n\n", "usage", output_tokens=answer.usage.output, settles=True)
    yield DONE


def _until_error(answer: Answer, order: Order) -> list[Part]:
    """The first chunks, then one with an error and nothing more."""
    parts: list[Part] = []
    events = 0
    for part in stream(answer, order):
        if events == order.behaviour.error_after_events or part.settles:
            break
        events += part.event != "comment"
        parts.append(part)
    return [*parts, _error_chunk(answer)]


def wire_usage(answer: Answer, order: Order) -> dict[str, Any]:
    """OpenAI's fields; overrides have their names, and None takes a field out. The cost is as for `/messages`."""
    usage, overrides = answer.usage, order.behaviour.usage
    prompt = usage.input + usage.cache_read + usage.cache_write
    shown: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking},
        "cost": answer.wire_usage.get("cost"),
        "cost_details": answer.wire_usage.get("cost_details"),
        "is_byok": False,
        **overrides,
    }
    return {name: value for name, value in shown.items() if name not in overrides or value is not None}


# -- How it is written -----------------------------------------------------------------------------------------------


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    created = int(answer.id.split("-")[1])
    return {"id": answer.id, "object": kind, "created": created, "model": answer.model, "provider": PROVIDER}


def _finish(answer: Answer) -> dict[str, str]:
    return {
        "finish_reason": _FINISH_REASONS.get(answer.stop_reason, answer.stop_reason),
        "native_finish_reason": answer.stop_reason,
    }


def _chunk(
    answer: Answer, delta: Mapping[str, Any], *, finish: Mapping[str, Any] | None = None, output_tokens: int = 0
) -> Part:
    ending = finish or {"finish_reason": None, "native_finish_reason": None}
    choice = {"index": 0, "delta": {"role": "assistant", **delta}, **ending, "logprobs": None}
    document = {**_head(answer, "chat.completion.chunk"), "choices": [choice]}
    return Part(b"data: " + dump(document) + b"\n\n", "chunk", output_tokens=output_tokens)


def _error_chunk(answer: Answer) -> Part:
    message, code = _STREAM_ERROR
    error = {"code": code, "message": message, "metadata": {"provider_name": PROVIDER}}
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    document = {**_head(answer, "chat.completion.chunk"), "error": error, "choices": [choice]}
    return Part(b"data: " + dump(document) + b"\n\n", "error")


def _texts(blocks: tuple[Block, ...], kind: str) -> str:
    return "".join(answers.block_text(block) for block in blocks if block.get("type") == kind)


def _tool_calls(blocks: tuple[Block, ...]) -> list[dict[str, Any]]:
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    return [
        {"index": index, "id": use["id"], "type": "function", "function": _function(use)}
        for index, use in enumerate(uses)
    ]


def _function(use: Block) -> dict[str, str]:
    return {"name": str(use["name"]), "arguments": json.dumps(use.get("input", {}), ensure_ascii=False)}


def _deltas(block: Block, count: int | None) -> Iterator[tuple[dict[str, Any], int]]:
    """The block's deltas with the output tokens that each makes."""
    text = answers.block_text(block)
    match block.get("type"):
        case "text":
            for piece in answers.pieces(text, count):
                yield {"content": piece}, answers.tokens_in(piece)
        case "thinking":
            for piece in answers.pieces(text, count):
                yield {"content": "", "reasoning": piece}, answers.tokens_in(piece)
        case "tool_use":
            function = _function(block)
            call = {"index": 0, "id": block["id"], "type": "function", "function": {**function, "arguments": ""}}
            yield {"content": None, "tool_calls": [call]}, 0
            for piece in answers.pieces(function["arguments"], count):
                part = {"index": 0, "function": {"arguments": piece}}
                yield {"content": None, "tool_calls": [part]}, answers.tokens_in(piece)
