"""What of an upstream stream may go out now, and what is held until the ledger has its row. No I/O.

What finishes an answer is held. Before the first event nothing goes out at all: until then another key may still be
tried. `StreamRelay` is what both dialects share; `MessagesRelay` is here, `proxy.chat_relay` has the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from proxy.answers import Usage, UsageReader, parse_payload
from proxy.model_in_answer import replace_model_in_event
from proxy.sse import MAX_EVENT_BYTES, EventReader, EventTooLarge, RawEvent, usual_events

_DELTA = b"content_block_delta"
_USUAL = usual_events(_DELTA)  # nearly all events, and nothing is read of them: a chunk of them goes out as it came
_BYTES_BESIDE = 64  # what the smallest event takes beside its own bytes
_READ_KINDS = frozenset({b"message_start", b"message_delta"})


class ReadUsage(Protocol):
    """What a relay has read on the way. `id`: upstream's generation id."""

    id: str
    usage: Usage


@dataclass(slots=True)
class StreamRelay:
    """Feed it chunks. `error` is the payload of an error that came as an event; `is_finished` is set by the last."""

    model_asked: str
    usage: ReadUsage = field(default_factory=UsageReader)
    has_started: bool = False
    is_finished: bool = False
    error: dict[str, Any] | None = None
    max_held_bytes: int = MAX_EVENT_BYTES
    _reader: EventReader = field(default_factory=EventReader)
    _waiting: list[bytes] = field(default_factory=list)
    _held_bytes: int = 0
    _is_holding: bool = False

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent to the client now. Raises `proxy.sse.EventTooLarge`."""
        run = self._reader.take_run(chunk) if self._is_flowing else None
        return self._pass(self._reader.feed(chunk)) if run is None else run

    @property
    def _is_flowing(self) -> bool:
        """What goes on the answer may go out as it comes."""
        return self.has_started and not (
            self._is_holding or self._waiting or self.is_finished or self.error is not None
        )

    def finish(self) -> bytes:
        """Upstream has closed; a cut event is dropped."""
        return self._pass(self._reader.finish())

    @property
    def held(self) -> bytes:
        """What finishes the answer, once it `is_finished`."""
        return b"".join(self._waiting)

    def _pass(self, events: list[RawEvent]) -> bytes:
        passed: list[bytes] = []
        for event in events:
            if self.is_finished or self.error is not None:
                break
            raw = self._read(event)
            if self._is_holding or not self.has_started:
                self._hold(raw)
                continue
            if self._waiting:
                passed += self._waiting
                self._waiting.clear()
                self._held_bytes = 0
            passed.append(raw)
        return b"".join(passed)

    def _hold(self, raw: bytes) -> None:
        """An upstream that never finishes an answer must not fill the memory with what is held of it."""
        self._held_bytes += len(raw) + _BYTES_BESIDE
        if self._held_bytes > self.max_held_bytes and not self.is_finished:
            raise EventTooLarge(f"more than {self.max_held_bytes:,} bytes that can't go out yet")
        self._waiting.append(raw)

    def _read(self, event: RawEvent) -> bytes:
        """Note what the event says; answers its bytes as the client shall get them."""
        raise NotImplementedError


@dataclass(slots=True)
class MessagesRelay(StreamRelay):
    """Clients take an answer as whole from the `message_delta` that carries `stop_reason`: held from there on."""

    usage: UsageReader = field(default_factory=UsageReader)
    _reader: EventReader = field(default_factory=partial(EventReader, usual=_USUAL))

    def _read(self, event: RawEvent) -> bytes:
        kind = event.kind
        if kind == _DELTA:
            self.has_started = True
            return event.raw
        if not event.is_surely_json and (event.is_done or event.is_stray_comment):
            return b""
        if kind == b"error":
            self.error = parse_payload(event.data)
            return b""
        if not kind:
            return self._read_unnamed(event)
        self.has_started = self.has_started or kind != b"ping"
        if kind in _READ_KINDS:
            return self._read_usage(event)
        if kind == b"message_stop":
            self._is_holding = self.is_finished = True
        return event.raw

    def _read_usage(self, event: RawEvent) -> bytes:
        self.usage.fold(event.kind, event.data)
        if event.kind == b"message_start":
            return replace_model_in_event(event.raw, self.usage.model, self.model_asked)
        self._is_holding = self._is_holding or self.usage.is_ending
        return event.raw

    def _read_unnamed(self, event: RawEvent) -> bytes:
        """A comment, or data without a name, which SDKs skip; but an error may come this way too."""
        if b'"error"' in event.raw:
            payload = parse_payload(event.data)
            if payload.get("error"):
                self.error = payload
                return b""
        return event.raw
