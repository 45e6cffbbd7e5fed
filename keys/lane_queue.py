"""What waits for the lane, and how its senders are told: the meeting of the event loops and the lane's thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from queue import Empty, SimpleQueue

from keys.ledger_items import Admit, Admitted, Identify, LaneItem, LaneResult, PassTrial, Settlement, Switch

_FIRST, _LAST = 0, 3
_RANKS: dict[type, int] = {Settlement: _FIRST, PassTrial: 1, Switch: 2, Admit: _LAST, Identify: _LAST}
_rank = attrgetter("rank")


class Waiting:
    """An item and the future that its sender awaits; None: nobody does. Two are made for each request."""

    outcome: LaneResult | BaseException = None
    in_doubt: Admitted | None = None  # what a commit without confirmation may have written
    is_answered = False
    is_abandoned = False  # its sender has been told that it failed, whatever becomes of it

    def __init__(self, item: LaneItem, future: asyncio.Future[LaneResult] | None) -> None:
        self.item = item
        self.future = future
        self.rank = _RANKS[type(item)]

    def follow(self) -> asyncio.Future[LaneResult]:
        """A new future, for a sender that has given up the one it had. In the thread of its event loop."""
        assert self.future is not None
        self.future = self.future.get_loop().create_future()
        if self.is_answered:
            _resolve([self])
        return self.future

    @property
    def is_new(self) -> bool:
        """Work that was not begun yet."""
        return self.rank == _LAST

    @property
    def must_survive(self) -> bool:
        """Settlements wait until the database is back; everything else is refused while it is away."""
        return self.rank == _FIRST


class LaneQueue:
    """Settlements, passed trials and switches go before new work. Its methods may be called from any thread."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._urgent: deque[Waiting] = deque()
        self._new: deque[Waiting] = deque()
        self._running: Sequence[Waiting] = ()
        self._guard = threading.Lock()
        self._wake_up: SimpleQueue[None] = SimpleQueue()  # a condition would cost each `put` ten times as much
        self._is_asleep = False
        self.is_closed = False  # nothing new is taken; what waits is still run
        self.has_ended = False  # nothing is run any more

    @property
    def new_count(self) -> int:
        return len(self._new)

    def put(self, waiting: Waiting) -> bool:
        """False: the lane has ended."""
        with self._guard:
            if self.has_ended:
                return False
            (self._new if waiting.rank == _LAST else self._urgent).append(waiting)
            if self._is_asleep:
                self._wake()
        return True

    def _wake(self) -> None:
        """Under the guard."""
        self._is_asleep = False
        self._wake_up.put(None)

    def take(self, idle_seconds: Callable[[], float | None]) -> list[Waiting] | None:
        """What waits, settlements first. Empty: nothing does, but it is time to look around. None: it is closed."""
        with self._guard:
            rests = not self._urgent and not self._new
            if rests and self.is_closed:
                return None
            self._is_asleep = rests
        if rests:
            self._sleep(idle_seconds())
        with self._guard:
            batch = _taken(self._urgent, self._max_batch)
            batch.sort(key=_rank)
            batch += _taken(self._new, self._max_batch - len(batch))
            self._running = batch = [waiting for waiting in batch if not waiting.is_abandoned]
        return batch

    def _sleep(self, seconds: float | None) -> None:
        with contextlib.suppress(Empty):
            self._wake_up.get(timeout=seconds)
            return
        with self._guard:
            if not self._is_asleep:  # woken in this moment
                self._wake_up.get()
            self._is_asleep = False

    def take_refusable(self) -> list[Waiting]:
        """All that waits and need not survive an outage."""
        with self._guard:
            refusable = [waiting for waiting in (*self._urgent, *self._new) if not waiting.must_survive]
            self._new.clear()
            self._urgent = deque(waiting for waiting in self._urgent if waiting.must_survive)
        return refusable

    def abandon(self, is_late: Callable[[Waiting], bool], exc: Exception) -> int:
        """Fail what is late, waiting or running; how many that are. What comes of it is told by `answer`."""
        with self._guard:
            everything = (*self._running, *self._urgent, *self._new)
            late = [w for w in everything if not w.is_answered and not w.is_abandoned and is_late(w)]
            for waiting in late:
                waiting.is_abandoned = True
        _fail(late, exc)
        return len(late)

    def leave(self, waiting: Waiting) -> bool:
        """Its sender does not wait any more; whether it had its outcome by then. A settlement is run all the same."""
        with self._guard:
            waiting.is_abandoned = waiting.is_abandoned or not waiting.must_survive
            return waiting.is_answered

    def answer(self, batch: Sequence[Waiting]) -> list[Waiting]:
        """Tell the senders. Answers those of `batch` that were abandoned while it ran."""
        abandoned: list[Waiting] = []
        by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        with self._guard:
            self._running = ()
            for waiting in batch:
                waiting.is_answered = True
                if waiting.is_abandoned:
                    abandoned.append(waiting)
                elif waiting.future is not None:
                    by_loop.setdefault(waiting.future.get_loop(), []).append(waiting)
        for loop, answered in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, answered)
        return abandoned

    def close(self) -> None:
        with self._guard:
            self.is_closed = True
            if self._is_asleep:
                self._wake()

    def end(self, exc: Exception) -> None:
        """Nothing will be run any more: fail what is left."""
        with self._guard:
            self.is_closed = self.has_ended = True
            left = [*self._urgent, *self._new]
        _fail(left, exc)


def _taken(queue: deque[Waiting], most: int) -> list[Waiting]:
    """The first of them, and out of it."""
    if len(queue) > most:
        return [queue.popleft() for _ in range(most)]
    taken = list(queue)
    queue.clear()
    return taken


def _resolve(answered: Sequence[Waiting]) -> None:
    for waiting in answered:
        future, outcome = waiting.future, waiting.outcome
        if future is None or future.done():
            continue  # its sender was cancelled; the row is committed all the same
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _fail(refused: Iterable[Waiting], exc: Exception) -> None:
    for waiting in refused:
        future = waiting.future
        if future is not None and not (loop := future.get_loop()).is_closed():
            loop.call_soon_threadsafe(_set_exception, waiting, exc)


def _set_exception(waiting: Waiting, exc: Exception) -> None:
    if waiting.future is not None and not waiting.future.done():
        waiting.future.set_exception(exc)
