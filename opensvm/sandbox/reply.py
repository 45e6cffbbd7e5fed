"""A whole answer as data: what is sent, when, and how it ends. `connection` sends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from opensvm.sandbox.errors import Failed
from opensvm.sandbox.ledger import Meter
from opensvm.sandbox.money import dump
from opensvm.sandbox.script import Behaviour, Break

LABELS = (("Server", "OpenSVM-Sandbox"), ("X-OpenSVM-Sandbox", "true"))
JSON = "application/json"
EVENT_STREAM = "text/event-stream"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that belong together: an event with its blank line, a comment, or a whole JSON body."""

    payload: bytes
    event: str = "body"  # the event's name, "comment" or "done"
    delay_seconds: float = 0.0
    output_tokens: int = 0  # made when this part has gone out
    settles: bool = False  # it tells the cost: the generation is billed before it is sent


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Headers
    parts: tuple[Part, ...] = ()
    chunked: bool = False
    delay_seconds: float = 0.0  # before the headers
    comment_seconds: float | None = None
    slice_bytes: int | None = None
    cut: Break | None = None  # how it ends, when it does not end whole
    hang_up: Break | None = None  # instead of a first byte
    close_after: bool = False
    meter: Meter | None = None


def with_headers(headers: Headers, changes: Mapping[str, str]) -> Headers:
    """`changes` replace headers of the same name in any case."""
    names = {name.lower() for name in changes}
    kept = tuple((name, value) for name, value in headers if name.lower() not in names)
    return (*kept, *changes.items())


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    base: Headers = (("Content-Type", JSON), *LABELS)
    return Reply(status, with_headers(base, headers or {}), (Part(dump(document)),))


def failure_reply(failed: Failed) -> Reply:
    if failed.shape != "H":
        return json_reply(failed.document(), failed.status, failed.headers)
    base: Headers = (("Content-Type", "text/html; charset=UTF-8"), *LABELS)
    return Reply(failed.status, with_headers(base, failed.headers), (Part(failed.message.encode()),))


def stream_reply(parts: Iterable[Part], headers: Mapping[str, str] | None = None, meter: Meter | None = None) -> Reply:
    base: Headers = (("Content-Type", EVENT_STREAM), ("Cache-Control", "no-cache"), *LABELS)
    return Reply(200, with_headers(base, headers or {}), tuple(parts), chunked=True, meter=meter)


def raw_reply(body: bytes, behaviour: Behaviour) -> Reply:
    """The scripted bytes; they are a stream when the scripted Content-Type says so."""
    headers = with_headers((("Content-Type", JSON), *LABELS), behaviour.headers)
    content_type = {name.lower(): value for name, value in headers}["content-type"]
    streams = content_type.startswith(EVENT_STREAM)
    parts = tuple(split_events(body)) if streams else (Part(body),)
    return Reply(behaviour.status or 200, headers, parts, chunked=streams)


_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)|.+", re.DOTALL)


def split_events(raw: bytes) -> Iterable[Part]:
    for block in _EVENT.findall(raw):
        yield Part(block, "comment" if block.startswith(b":") else "event")


def behave(reply: Reply, behaviour: Behaviour) -> Reply:
    """`reply` with the behaviour's timing, faults and framing."""
    parts: tuple[Part, ...] = tuple(part for part in reply.parts if part.event not in behaviour.omit)
    for step in _STEPS:
        parts = step(parts, behaviour)
    whole = sum(len(part.payload) for part in parts)
    parts = _cut_bytes(_cut_events(parts, behaviour), behaviour)
    cut = behaviour.cut if sum(len(part.payload) for part in parts) < whole or _cuts_at_end(behaviour) else None
    length = {} if reply.chunked else {"Content-Length": str(whole)}
    headers = with_headers(with_headers(reply.headers, length), behaviour.headers)
    return replace(
        reply,
        parts=parts,
        headers=headers,
        cut=cut,
        delay_seconds=behaviour.delay_headers,
        comment_seconds=behaviour.comment_seconds,
        slice_bytes=behaviour.slice_bytes,
        hang_up=behaviour.hang_up,
        close_after=behaviour.close_after,
    )


def _cuts_at_end(behaviour: Behaviour) -> bool:
    """A cut at or behind the last byte still is one: the end of the body is never said."""
    return behaviour.cut_after_events is not None or behaviour.cut_after_bytes is not None


def _insert_extras(parts: tuple[Part, ...], behaviour: Behaviour) -> tuple[Part, ...]:
    extras = sorted(behaviour.extra_events, key=lambda extra: extra[0] % 2**31)  # -1 comes last
    for before, raw in reversed(extras):
        at = _index_of_event(parts, before)
        parts = (*parts[:at], *split_events(raw.encode()), *parts[at:])
    return parts


def _index_of_event(parts: tuple[Part, ...], number: int) -> int:
    events = [index for index, part in enumerate(parts) if part.event != "comment"]
    return events[number] if 0 <= number < len(events) else len(parts)


def _pace(parts: tuple[Part, ...], behaviour: Behaviour) -> tuple[Part, ...]:
    delays = [behaviour.delay_between] * len(parts)
    if delays:
        delays[0] = behaviour.delay_first_event
    return tuple(replace(part, delay_seconds=delay) for part, delay in zip(parts, delays, strict=True))


def _end_lines(parts: tuple[Part, ...], behaviour: Behaviour) -> tuple[Part, ...]:
    """JSON escapes its line ends, so only those of the framing change."""
    if behaviour.line_end == "\n":
        return parts
    ending = behaviour.line_end.encode()
    return tuple(
        part if part.event == "body" else replace(part, payload=part.payload.replace(b"\n", ending)) for part in parts
    )


_STEPS: tuple[Callable[[tuple[Part, ...], Behaviour], tuple[Part, ...]], ...] = (_insert_extras, _pace, _end_lines)


def _cut_events(parts: tuple[Part, ...], behaviour: Behaviour) -> tuple[Part, ...]:
    if behaviour.cut_after_events is None:
        return parts
    return parts[: _index_of_event(parts, behaviour.cut_after_events)]


def _cut_bytes(parts: tuple[Part, ...], behaviour: Behaviour) -> tuple[Part, ...]:
    if behaviour.cut_after_bytes is None:
        return parts
    kept, room = [], behaviour.cut_after_bytes
    for part in parts:
        if room <= 0:
            break
        whole = len(part.payload) <= room
        # Of an event that is cut, nothing is made and nothing is told.
        kept.append(part if whole else replace(part, payload=part.payload[:room], output_tokens=0, settles=False))
        room -= len(part.payload)
    return tuple(kept)
