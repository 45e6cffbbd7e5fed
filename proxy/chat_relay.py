"""The relay of a chat completion's stream: data without event names, and `[DONE]` at the end.

Clients take the answer as whole from the chunk that carries `finish_reason`, of several choices the last one's, so
everything from there on is held. The model's name is in each chunk, and each gets the client's name back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.answers import parse_payload
from proxy.chat_answers import ChatUsageReader, finished_choices, has_error
from proxy.model_in_answer import replace_model
from proxy.sse import RawEvent
from proxy.stream_relay import StreamRelay

_DONE = b"data: [DONE]\n\n"
_DATA_START = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:[^\r\n]*[\r\n])*?data:")
_REASON = rb'"finish_reason"\s*:\s*'
_FINISH = re.compile(_REASON + rb'(?!null\b|false\b|""|"error")\S')
# Ends, bills, errors, and chunks of other choices than the first.
_WORTH_READING = re.compile(_REASON + rb'(?!null\b)\S|"usage"\s*:\s*\{|"error"|"index"\s*:\s*[1-9]')


@dataclass(slots=True)
class ChatRelay(StreamRelay):
    """`is_finished` is set by `[DONE]`, or by the end of a stream all of whose choices have finished."""

    usage: ChatUsageReader = field(default_factory=ChatUsageReader)
    _choices: dict[int, bool] = field(default_factory=dict)  # whether it has finished
    _may_be_whole: bool = False  # a finish was seen in what can't be read: a reason to hold, but none to call it an end

    def finish(self) -> bytes:
        """Upstream has closed. A `[DONE]` that it owed to a whole answer is made up for."""
        passed = StreamRelay.finish(self)
        if self._is_whole and self.error is None and not self.is_finished:
            self._waiting.append(_DONE)
            self.is_finished = True
        return passed

    def _read(self, event: RawEvent) -> bytes:
        if event.is_done:
            self._is_holding = self.is_finished = self._is_whole or self._may_be_whole
            return event.raw if self.is_finished else b""
        if event.is_stray_comment:
            return b""
        if event.is_comment:
            return event.raw
        if self._is_holding or not self.usage.id or _WORTH_READING.search(event.raw):
            payload = parse_payload(event.data)
            if has_error(payload):
                self.error = payload
                return b""
            self.usage.fold(payload)
            self._may_be_whole = self._may_be_whole or (not payload and bool(_FINISH.search(event.raw)))
            self._note_choices(payload)
            self._is_holding = self._is_whole or self._may_be_whole  # another choice may begin when the first has ended
        self.has_started = True
        return _with_model(event.raw, self.model_asked)

    @property
    def _is_whole(self) -> bool:
        return bool(self._choices) and all(self._choices.values())

    def _note_choices(self, payload: Mapping[str, Any]) -> None:
        for index, is_finished in finished_choices(payload):
            self._choices[index] = is_finished or self._choices.get(index, False)


def _with_model(raw: bytes, name: str) -> bytes:
    """A chunk with another name at its `model`. Data over several lines, which nobody sends, stays as it is."""
    start = _DATA_START.match(raw)
    return raw if start is None else raw[: start.end()] + replace_model(raw[start.end() :], ("model",), name)
