"""The relay of a chat completion's stream: data without event names, and `[DONE]` at the end.

Clients take the answer as whole from the chunk that carries `finish_reason` (of several choices, from the first such
chunk), so everything from there on is held. The model's name is in each chunk, and each gets the client's name back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from proxy.answers import parse_payload, replace_model
from proxy.chat_answers import ChatUsageReader, has_error
from proxy.sse import RawEvent
from proxy.stream_relay import StreamRelay

_DONE = b"data: [DONE]\n\n"
_DATA_START = re.compile(rb"\A(?:[^\n]*\n)*?data:")
_WORTH_READING = re.compile(rb'"finish_reason"\s*:\s*"|"usage"\s*:\s*\{|"error"')


@dataclass(slots=True)
class ChatRelay(StreamRelay):
    """`is_finished` is set by `[DONE]`, or by the end of a stream whose `finish_reason` has come."""

    usage: ChatUsageReader = field(default_factory=ChatUsageReader)

    def finish(self) -> bytes:
        """Upstream has closed. A `[DONE]` that it owed to a whole answer is made up for."""
        passed = StreamRelay.finish(self)
        if self._is_holding and self.error is None and not self.is_finished:
            self._held.append(_DONE)
            self.is_finished = True
        return passed

    def _read(self, event: RawEvent) -> bytes:
        if event.is_done:
            self._is_holding = self.is_finished = bool(self.usage.finish_reason)
            return event.raw if self.is_finished else b""
        if event.is_comment:
            return event.raw
        if not self.usage.id or _WORTH_READING.search(event.raw):
            payload = parse_payload(event.data)
            if has_error(payload):
                self.error = payload
                return b""
            self.usage.fold(payload)
            self._is_holding = self._is_holding or bool(self.usage.finish_reason)
        self.has_started = True
        return _with_model(event.raw, self.model_asked)


def _with_model(raw: bytes, name: str) -> bytes:
    """A chunk with another name at its `model`. Data over several lines, which nobody sends, stays as it is."""
    start = _DATA_START.match(raw)
    return raw if start is None else raw[: start.end()] + replace_model(raw[start.end() :], ("model",), name)
