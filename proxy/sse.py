"""Cuts a server-sent event stream into whole raw events, without changing a byte and mostly without looking inside.

The relay feeds it what upstream sends and passes `RawEvent.raw` on. An event ends with a blank line; lines end with
LF, CRLF or CR. https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 32 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 10
_CR: Final = 13
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# Atomic, so that the CR and the LF of one CRLF are never taken for two line ends.
_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class EventTooLarge(Exception):
    """An event, or what is held of a stream, is larger than what is kept in memory of one."""


class RawEvent(NamedTuple):
    """`raw`: the bytes as they came, blank line included. `kind`: the value of its `event:` line, or empty."""

    raw: bytes
    kind: bytes
    known_data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The values of the `data:` lines, joined by LF."""
        return b"\n".join(_values(self.raw, b"data")) if self.known_data is None else self.known_data

    @property
    def is_comment(self) -> bool:
        """Nothing a client would dispatch: comments, a lone id, a blank line too many."""
        return not self.kind and not any(True for _ in _values(self.raw, b"data"))

    @property
    def is_done(self) -> bool:
        """The `[DONE]` that OpenRouter sends after the last event and new Anthropic SDKs fail on.

        OpenAI's SDKs end at data that only begins with it.
        """
        return b"[DONE]" in self.raw and self.data.lstrip().startswith(b"[DONE]")

    @property
    def is_surely_json(self) -> bool:
        """Its data is an object or what has begun as one: no `[DONE]` and no comment, as can be seen at once."""
        return self.known_data is not None and self.known_data.startswith(b"{")

    @property
    def is_stray_comment(self) -> bool:
        """A comment that was written as data, as seen of OpenRouter: who reads the data as JSON fails on it."""
        return (b"data: :" in self.raw or b"data::" in self.raw) and self.data.startswith(b":")


class Usual(NamedTuple):
    """How usual events look: one of any kind, with its kind and its data as groups, or a run of those of `run_kind`.

    Each event of a run begins with `run_start`; between two of them stands `run_joint`.
    """

    pattern: re.Pattern[bytes]
    run_kind: bytes
    run_start: bytes
    run_joint: bytes

    def is_run(self, chunk: bytes) -> bool:
        """Whether `chunk` is such a run and nothing else, by the line ends alone: each event has three of them.

        Those of the beginnings that follow a blank line, of the first beginning and of the last blank line must be all
        there are; so no event has another line.
        """
        if not chunk.startswith(self.run_start) or not chunk.endswith(b"\n\n") or chunk.find(b"\r") >= 0:
            return False
        return chunk.count(b"\n") == 3 * (chunk.count(self.run_joint) + 1)


def usual_events(run_kind: bytes) -> Usual:
    """Events with a kind and one line of data, in streams whose lines end with LF. A run need not be told apart.

    The group's own repeat is no possessive one: before Python 3.11.5 that takes the beginning of an event with it
    (https://github.com/python/cpython/issues/106052).
    """
    run = rb"(?:event: %b\ndata: [^\n]*+\n\n)+" % re.escape(run_kind)
    pattern = re.compile(run + rb"|event: ([^\n]*+)\ndata: ([^\n]*+)\n\n")
    run_start = b"event: %b\ndata: " % run_kind
    return Usual(pattern, run_kind, run_start, b"\n\n" + run_start)


class EventReader:
    """Bytes in, whole events out; what was cut where makes no difference. Time is linear in the bytes fed.

    What is `usual` is found quickly, and a run of events comes as one `RawEvent`.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES, usual: Usual | None = None) -> None:
        self._max_event_bytes = max_event_bytes
        self._usual = usual
        self._buffer: bytes | bytearray = b""  # a chunk that meets no rest of an earlier one is not copied
        self._searched = 0  # up to here the buffer holds no end of an event
        self._has_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[RawEvent]:
        """The events that `chunk` completes. Raises `EventTooLarge`, also for one that is not complete yet."""
        if not self._has_cr and b"\r" in chunk:
            self._has_cr = True
        if self._buffer:
            self._buffer += chunk
        else:
            self._buffer = chunk
        return self._cut(is_final=False)

    def take_run(self, chunk: bytes) -> bytes | None:
        """As `feed`, where `chunk` completes a run of usual events and no other: their bytes. None: nothing is taken.

        What it begins and does not complete is kept, as reads cut a stream anywhere. No CR may be in that: behind one,
        events end in other ways.
        """
        end = chunk.rfind(b"\n\n") + 2
        if end < 2 or self._at_start or self._has_cr or self._usual is None:
            return None
        if len(self._buffer) + len(chunk) > self._max_event_bytes:
            return None
        run, rest = (chunk, b"") if end == len(chunk) else (chunk[:end], chunk[end:])
        if self._buffer:
            run = b"".join((self._buffer, run))
        if rest.find(b"\r") >= 0 or not self._usual.is_run(run):
            return None
        self._keep(rest)
        return run

    def finish(self) -> list[RawEvent]:
        """What the end of the stream completes: after a CR, no LF can follow any more."""
        return self._cut(is_final=True)

    def leftover(self) -> bytes:
        """What was fed and belongs to no complete event; after `finish`, a cut event that clients must discard."""
        return bytes(self._buffer)

    def _cut(self, *, is_final: bool) -> list[RawEvent]:
        events: list[RawEvent] = []
        start, size = 0, len(self._buffer)
        while start < size and (event := self._next(start, is_final=is_final)) is not None:
            events.append(event)
            start += len(event.raw)
            self._at_start = False
        self._keep(self._buffer[start:] if start else self._buffer)
        return events

    def _keep(self, rest: bytes | bytearray) -> None:
        """The beginning of an event. More of it is appended in place."""
        if isinstance(rest, bytes):
            rest = bytearray(rest) if rest else b""
        self._buffer = rest
        # A blank line may have begun in the last two bytes: the end of a line, and a CR whose LF is still to come.
        self._searched = max(0, len(rest) - 2)
        self._check_size(len(rest))

    def _next(self, start: int, *, is_final: bool) -> RawEvent | None:
        event = self._match_usual(start)
        if event is not None:
            return event
        end = self._find_end(start, is_final=is_final)
        if not end:
            return None
        raw = bytes(self._buffer[start:end])
        self._check_size(len(raw))
        return RawEvent(raw, _kind_of(raw))

    def _match_usual(self, start: int) -> RawEvent | None:
        if self._usual is None or self._has_cr:
            return None
        if self._searched > start and self._buffer.find(b"\n\n", self._searched) < 0:
            return None  # what is not whole is not looked through again and again
        found = self._usual.pattern.match(self._buffer, start)
        if found is None or found.end() - start > self._max_event_bytes:
            return None
        raw, kind, data = found.group(0, 1, 2)
        return RawEvent(raw, self._usual.run_kind if kind is None else kind, data)

    def _find_end(self, start: int, *, is_final: bool) -> int:
        """Where the event that begins at `start` ends; 0 if that has not come yet."""
        first = start
        if self._at_start and self._buffer.startswith(_BOM):
            first += len(_BOM)
        if first >= len(self._buffer):
            return 0
        if self._buffer[first] == _LF:
            return first + 1
        search_from = max(first, self._searched)
        if self._has_cr:
            return self._find_end_with_cr(first, search_from, is_final=is_final)
        end = self._buffer.find(b"\n\n", search_from)
        return end + 2 if end >= 0 else 0

    def _find_end_with_cr(self, first: int, search_from: int, *, is_final: bool) -> int:
        pattern, at = (_LINE_END.match, first) if self._buffer[first] == _CR else (_BLANK_LINE.search, search_from)
        found = pattern(self._buffer, at)
        if found is None:
            return 0
        end = found.end()
        is_undecided = end == len(self._buffer) and self._buffer[end - 1] == _CR and not is_final
        return 0 if is_undecided else end

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes:,} bytes")


def _kind_of(raw: bytes) -> bytes:
    return [b"", *_values(raw, b"event")][-1] if b"event" in raw else b""  # the last one counts


def _values(raw: bytes, field: bytes) -> Iterator[bytes]:
    """The values of a field in an event. A BOM can only stand at the start of a stream; elsewhere it is ignored too."""
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if name == field:
            yield value.removeprefix(b" ")
