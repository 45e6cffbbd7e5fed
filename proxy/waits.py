"""Waits that hardly ever run out, many under one timer of the event loop's.

Each request is waited for three times, with a limit each time. A timer of uvloop's costs 2 µs to set and to cancel,
which was a tenth of all that a request takes; a place in a dict costs a tenth of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_SHORTEST_SECONDS = 0.001  # the loop's clock has no finer steps
NO_WAIT = 0


class Limit:
    """All waits that may take `seconds`. They begin in the order in which they run out."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[int, tuple[float, Callable[[], object]]] = {}  # when it is over, and what is called then
        self._last = NO_WAIT
        self._loop: asyncio.AbstractEventLoop | None = None  # whose timer is set

    def begin(self, loop: asyncio.AbstractEventLoop, on_late: Callable[[], object]) -> int:
        """Have `on_late` called in `seconds`, unless what is answered is given to `end` before."""
        if self._loop is not loop:
            self._waits.clear()  # of a loop that has ended, if any
            self._set_timer(loop, self._seconds)
        self._last += 1
        self._waits[self._last] = loop.time() + self._seconds, on_late
        return self._last

    def end(self, wait: int) -> None:
        """Also of one that is over, or of none."""
        self._waits.pop(wait, None)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        loop.call_later(max(seconds, _SHORTEST_SECONDS), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now, late = loop.time(), list[int]()
        for wait, (end, _) in self._waits.items():
            if end > now:
                break
            late.append(wait)
        for wait in late:
            if wait in self._waits:  # else another one's callback has ended it
                _call(loop, self._waits.pop(wait)[1])
        first = next(iter(self._waits.values()), None)
        if first is None:
            self._loop = None
        else:
            self._set_timer(loop, first[0] - now)


class Waits(dict[float, Limit]):
    """The limits of a process by their seconds, of which there are few; for one event loop."""

    def __missing__(self, seconds: float) -> Limit:
        limit = self[seconds] = Limit(seconds)
        return limit


def _call(loop: asyncio.AbstractEventLoop, on_late: Callable[[], object]) -> None:
    """A fault in one is told as the loop tells it, and is no fault of the others."""
    try:
        on_late()
    except Exception as exc:
        loop.call_exception_handler({"message": "a wait's callback failed", "exception": exc})
