"""What the benchmark's upstream says: a message and a stream in OpenRouter's shape, made once, as bytes.

Only the id (and, in a paced stream, the time) differs from answer to answer, so making one costs a join.
"""

from __future__ import annotations

import json
from typing import Any

MODEL = "anthropic/claude-3.5-sonnet"
STAMP = b"t=%020dz"  # CLOCK_MONOTONIC in ns, which all processes of one machine share; always of one length
FIXED_EVENTS = 6  # of a stream, beside its deltas: start, block start, ping, block stop, message delta, stop
_ID = "gen-1700000000-%020d"
_TEXT = (
    "Round robin gives each key its turn; a counter in the database keeps the turn, so any number of processes agree. "
    "When a key is limited it waits for as long as upstream says, and another one answers in its place. "
)
_USAGE: dict[str, Any] = {
    "input_tokens": 312,
    "output_tokens": 148,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens_details": {"thinking_tokens": 0},
    "server_tool_use": None,
    "service_tier": "standard",
    "cost": 0.003156,
    "cost_details": {
        "upstream_inference_cost": 0.003156,
        "upstream_inference_prompt_cost": 0.000936,
        "upstream_inference_completions_cost": 0.00222,
    },
    "is_byok": False,
}
_MESSAGE: dict[str, Any] = {
    "id": _ID,
    "type": "message",
    "role": "assistant",
    "container": None,
    "content": [{"type": "text", "text": _TEXT}],
    "model": MODEL,
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "usage": _USAGE,
    "provider": "Anthropic",
}
_MARK = _ID % 0


def response(content_type: str, body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Message:
    """The answer to a request that does not stream: about 1 kB of JSON."""

    def __init__(self) -> None:
        body = json.dumps({**_MESSAGE, "id": _MARK}, separators=(",", ":")).encode()
        self._before, self._after = response("application/json", body).split(_MARK.encode())

    def made(self, number: int) -> bytes:
        return b"%b%b%b" % (self._before, (_ID % number).encode(), self._after)


class Stream:
    """The answer to one that does: the recorded order of events, `deltas` of them text, each in a chunk of its own."""

    def __init__(self, deltas: int) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
        opening = head + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(b": OPENROUTER PROCESSING\n\n") + _start()
        self._before, self._after = opening.split(_MARK.encode())
        self.deltas = deltas
        self.delta = _event("content_block_delta", _delta((STAMP % 0).decode()))
        self._delta_before, self._delta_after = self.delta.split(STAMP % 0)
        self.closing = _closing()

    def opening(self, number: int) -> bytes:
        """The head, a comment and `message_start`, the block's start and a ping."""
        return b"%b%b%b" % (self._before, (_ID % number).encode(), self._after)

    def delta_at(self, nanoseconds: int) -> bytes:
        """A delta that tells when it was sent."""
        return self._delta_before + STAMP % nanoseconds + self._delta_after


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(name: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"type": name, **fields}, separators=(",", ":")).encode()
    return _chunk(b"event: %b\ndata: %b\n\n" % (name.encode(), data))


def _delta(stamp: str) -> dict[str, Any]:
    return {"index": 0, "delta": {"type": "text_delta", "text": f"{stamp} and another few words"}}


def _start() -> bytes:
    usage = dict.fromkeys(_USAGE, None) | {"input_tokens": 0, "output_tokens": 0}
    message = {**_MESSAGE, "id": _MARK, "content": [], "stop_reason": None, "usage": usage}
    return (
        _event("message_start", {"message": message})
        + _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
        + _event("ping", {})
    )


def _closing() -> bytes:
    delta = {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None, "container": None}
    return (
        _event("content_block_stop", {"index": 0})
        + _event("message_delta", {"delta": delta, "usage": _USAGE})
        + _event("message_stop", {})
        + _chunk(b"event: data\ndata: [DONE]\n\n")
        + b"0\r\n\r\n"
    )
