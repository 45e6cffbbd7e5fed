"""What the sandbox says: deterministic content blocks, the message made of them, and the same as a stream."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opensvm.sandbox.catalogue import Usage
from opensvm.sandbox.errors import PROVIDER
from opensvm.sandbox.money import dump
from opensvm.sandbox.reply import Part
from opensvm.sandbox.script import Behaviour

CHARACTERS_PER_TOKEN = 4
DELTA_CHARACTERS = 24
COMMENT = Part(b": OPENROUTER PROCESSING\n\n", "comment")
DONE = Part(b"event: data\ndata: [DONE]\n\n", "done")

Block = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer before it is written. `wire_usage` is `usage` as the client sees it, cost included."""

    id: str
    model: str
    content: tuple[Block, ...]
    stop_reason: str
    stop_sequence: str | None
    usage: Usage
    wire_usage: Mapping[str, Any]
    metadata: Mapping[str, Any] | None = None  # openrouter_metadata, when it was asked for


def tokens_in(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def block_text(block: Block) -> str:
    """The part of a block that its deltas carry and that costs tokens."""
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "thinking":
            return str(block.get("thinking", ""))
        case "tool_use" | "server_tool_use":
            return json.dumps(block.get("input", {}), ensure_ascii=False)
    return json.dumps(block, ensure_ascii=False)


# -- What is said ----------------------------------------------------------------------------------------------------


def last_user_text(messages: list[Any]) -> str:
    """The text blocks of the last user message; tool results count as what they hold."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return _text_of(message.get("content"))
    return ""


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    texts = [_block_said(block) for block in blocks if isinstance(block, dict)]
    return " ".join(text for text in texts if text)


def _block_said(block: dict[str, Any]) -> str:
    if block.get("type") == "tool_result":
        return _text_of(block.get("content"))
    return str(block.get("text", "")) if block.get("type") == "text" else ""


def compose(body: dict[str, Any], behaviour: Behaviour) -> tuple[Block, ...]:
    """The content blocks for a request: thinking when it is on, then a tool call when one is demanded, else text."""
    if behaviour.content is not None:
        return behaviour.content
    blocks: list[Block] = []
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive", "between_tools"):
        omitted = thinking.get("display") == "omitted"
        thought = "" if omitted else "The sandbox has no model that thinks; this block shows the shape of a thought."
        blocks.append({"type": "thinking", "thinking": thought, "signature": "c2FuZGJveC1zaWduYXR1cmU="})
    tool = _demanded_tool(body)
    if tool is not None and behaviour.text is None:
        blocks.append(_tool_use(tool))
    else:
        blocks.append({"type": "text", "text": _text(body, behaviour)})
    return tuple(blocks)


def _text(body: dict[str, Any], behaviour: Behaviour) -> str:
    text = behaviour.text
    if text is None:
        text = f"This is the OpenSVM Sandbox; no model was asked. You said: {last_user_text(body['messages'])}"
    if behaviour.text_length is not None:
        text = (text or ".") * (behaviour.text_length // max(len(text), 1) + 1)
        text = text[: behaviour.text_length]
    return text


def _demanded_tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that `tool_choice` any or tool asks for."""
    choice = body.get("tool_choice")
    tools = [tool for tool in body.get("tools") or [] if isinstance(tool, dict)]
    if not isinstance(choice, dict) or not tools:
        return None
    if choice.get("type") == "any":
        return tools[0]
    named = [tool for tool in tools if tool.get("name") == choice.get("name")]
    return named[0] if choice.get("type") == "tool" and named else None


def _tool_use(tool: dict[str, Any]) -> Block:
    name = str(tool.get("name", "tool"))
    made = _example(tool.get("input_schema") or {})
    return {"type": "tool_use", "id": f"toolu_bdrk_{secrets.token_hex(12)}", "name": name, "input": made}


def _example(schema: Any) -> Any:
    """A value that fits the simple parts of a JSON schema."""
    if not isinstance(schema, dict):
        return "sandbox"
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type", "object"):
        case "object":
            return {name: _example(part) for name, part in (schema.get("properties") or {}).items()}
        case "array":
            return [_example(schema.get("items", {"type": "string"}))]
        case "integer" | "number":
            return 1
        case "boolean":
            return True
    return "sandbox"


def limit(
    blocks: tuple[Block, ...], max_tokens: int | None, stops: list[str]
) -> tuple[tuple[Block, ...], str, str | None]:
    """The blocks within `max_tokens` and before a stop sequence, with stop_reason and stop_sequence."""
    kept: list[Block] = []
    room = max_tokens
    for block in blocks:
        text = block_text(block)
        found = _first_stop(text, stops) if block.get("type") == "text" else None
        if found is not None:
            kept.append({**block, "text": text[: text.index(found)]})
            return tuple(kept), "stop_sequence", found
        if room is not None and tokens_in(text) > room:
            if block.get("type") == "text":
                kept.append({**block, "text": text[: room * CHARACTERS_PER_TOKEN]})
            return tuple(kept), "max_tokens", None
        kept.append(block)
        room = None if room is None else room - tokens_in(text)
    uses_tool = any(block.get("type") == "tool_use" for block in kept)
    return tuple(kept), "tool_use" if uses_tool else "end_turn", None


def _first_stop(text: str, stops: list[str]) -> str | None:
    found = [stop for stop in stops if stop and stop in text]
    return min(found, key=text.index) if found else None


# -- How it is written -----------------------------------------------------------------------------------------------


def message(answer: Answer) -> dict[str, Any]:
    metadata = {} if answer.metadata is None else {"openrouter_metadata": dict(answer.metadata)}
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "container": None,
        "content": [dict(block) for block in answer.content],
        "model": answer.model,
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": None,
        "usage": dict(answer.wire_usage),
        "provider": PROVIDER,
        **metadata,
    }


def stream(answer: Answer, deltas: int | None) -> Iterator[Part]:
    """The answer as OpenRouter streams it: input tokens 0 at first, the bill in message_delta, `[DONE]` at the end."""
    yield COMMENT
    start = {**message(answer), "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage_at_start()}
    yield event("message_start", {"message": start})
    made = 0
    for index, block in enumerate(answer.content):
        for name, fields, tokens in _block_events(block, deltas):
            made = min(made + tokens, answer.usage.output)
            yield event(name, {"index": index, **fields}, output_tokens=made)
        if index == 0:
            yield event("ping", {}, output_tokens=made)
    delta = {"stop_reason": answer.stop_reason, "stop_sequence": answer.stop_sequence, "stop_details": None}
    closing = {"delta": {**delta, "container": None}, "usage": dict(answer.wire_usage)}
    yield event("message_delta", closing, output_tokens=answer.usage.output, settles=True)
    yield event("message_stop", {}, output_tokens=answer.usage.output)
    yield DONE


def event(name: str, fields: Mapping[str, Any], *, output_tokens: int = 0, settles: bool = False) -> Part:
    payload = b"event: %s\ndata: %s\n\n" % (name.encode(), dump({"type": name, **fields}))
    return Part(payload, name, output_tokens=output_tokens, settles=settles)


def _usage_at_start() -> dict[str, Any]:
    return {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation_input_tokens": None,
        "cache_read_input_tokens": None,
        "cache_creation": None,
        "server_tool_use": None,
        "service_tier": None,
    }


def _block_events(block: Block, deltas: int | None) -> Iterator[tuple[str, dict[str, Any], int]]:
    """The block's events as name, fields and output tokens made by it."""
    yield "content_block_start", {"content_block": _opened(block)}, 0
    kind = block.get("type")
    text = block_text(block)
    if kind in _DELTAS:
        delta_type, field_name = _DELTAS[kind]
        for piece in pieces(text, deltas):
            yield "content_block_delta", {"delta": {"type": delta_type, field_name: piece}}, tokens_in(piece)
    if kind == "thinking":
        yield "content_block_delta", {"delta": {"type": "signature_delta", "signature": block.get("signature", "")}}, 0
    yield "content_block_stop", {}, 0 if kind in _DELTAS else tokens_in(text)


_DELTAS: dict[Any, tuple[str, str]] = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
    "server_tool_use": ("input_json_delta", "partial_json"),
}
_EMPTIED: dict[Any, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"input": {}},
}


def _opened(block: Block) -> dict[str, Any]:
    """The block as content_block_start shows it: without what its deltas will carry."""
    return {**block, **_EMPTIED.get(block.get("type"), {})}


def pieces(text: str, count: int | None) -> list[str]:
    """`text` in `count` pieces, as even as can be (empty ones when there are too few characters)."""
    if count is None:
        return [text[at : at + DELTA_CHARACTERS] for at in range(0, len(text), DELTA_CHARACTERS)]
    if count <= 0:
        return []
    bounds = [len(text) * index // count for index in range(count + 1)]
    return [text[low:high] for low, high in itertools.pairwise(bounds)]
