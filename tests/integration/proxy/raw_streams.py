"""A stream as upstream might send it, odd but legal, with every byte known: what clients must get of it is computed."""

from __future__ import annotations

import json
from typing import Any

from tests.data_plane import MESSAGE
from tests.sandbox import SandboxFixture

ASKED = MESSAGE["model"]
SENT_BACK = "anthropic/claude-4.5-sonnet-20250929"  # the name upstream answers with
GENERATION = "gen-1795371310-test"
COST_NANO = 1_234_500
USAGE = {"input_tokens": 11, "output_tokens": 27, "cache_read_input_tokens": 5, "cost": 0.0012345}
DONE = b"event: data\ndata: [DONE]\n\n"
COMMENT = b": OPENROUTER PROCESSING\n\n"
TEXTS = ["Gr", "üße", " 🦀", "\u2028", " ", "", 'quo"te', "\\n", "日本", "model", '"model":"x"']


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields}, ensure_ascii=False)}\n\n".encode()


def _start() -> bytes:
    message = {
        "id": GENERATION,
        "type": "message",
        "model": SENT_BACK,
        "content": [],
        "usage": {"input_tokens": 0},
        "openrouter_metadata": {"model": SENT_BACK},
    }
    return event("message_start", message=message, unknown={"nested": [1, 1.50, 10**30]})


def _deltas() -> list[bytes]:
    made = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in TEXTS]
    made[3:3] = [event("ping", sent_by="upstream"), event("brand_new_event", anything=[None, True])]
    # Odd spacing, a repeated key, an event without its `event:` line, several data lines, an id and a retry field
    made[6:6] = [
        b'event:content_block_delta\ndata:{ "type" : "content_block_delta" , "index":0,"index":0,'
        b'"delta":{"type":"text_delta","text":"\\u00fc"} }\n\n',
        b'data: {"type":"unnamed"}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,\n'
        b'data: "delta":{"type":"text_delta","text":"two lines"}}\n\n',
        b'id: 7\nretry: 10\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":'
        b'"new_delta"}}\n\n',
    ]
    return made


EVENTS = [
    _start(),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    *_deltas(),
    event("content_block_stop", index=0),
    event(
        "content_block_start", index=1, content_block={"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    ),
    event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"a"'}),
    event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": ": 1}"}),
    event("content_block_stop", index=1),
    event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 3}),  # a heartbeat, not the end
    event("content_block_start", index=2, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=2, delta={"type": "text_delta", "text": "end"}),
    event("content_block_stop", index=2),
    event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=USAGE, extra="kept"),
    event("message_stop", extra="kept"),
]
CLOSING = len(EVENTS) - 2  # the index of the message_delta that finishes the answer
WHOLE = b"".join([COMMENT, *EVENTS[:4], COMMENT, *EVENTS[4:], DONE])


def for_client(raw: bytes, model: str = str(ASKED)) -> bytes:
    """`raw` as the client shall get it: the asked model at message.model, no `[DONE]`, all else byte for byte."""
    renamed = raw.replace(f'"model": "{SENT_BACK}", "content"'.encode(), f'"model": "{model}", "content"'.encode())
    return (
        renamed.replace(DONE, b"").replace(DONE.replace(b"\n", b"\r\n"), b"").replace(DONE.replace(b"\n", b"\r"), b"")
    )


def serve_raw(sandbox: SandboxFixture, raw: bytes = WHOLE, **behaviour: Any) -> None:
    """The sandbox answers with exactly these bytes."""
    headers = {"content-type": "text/event-stream", "x-generation-id": GENERATION, **behaviour.pop("headers", {})}
    sandbox.behave(body=raw, headers=headers, **behaviour)
