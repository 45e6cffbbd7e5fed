"""The round robin, as a pure value: who is next among the keys that may serve. Called by `keys.steps.admission`."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterable
from uuid import UUID

import msgspec


class Candidate(msgspec.Struct, gc=False):
    """An eligible key as read in this batch. `is_due`: it has a cooldown whose time is over, so it needs a trial."""

    key_id: UUID
    account_id: UUID | None
    name: str
    tail: str
    secret: bytes
    tier: int
    turn: int
    is_due: bool = False
    times_selected: int = 0


def _order(candidate: Candidate) -> tuple[int, int]:
    return candidate.tier, candidate.turn


class Rotation:
    """Candidates in the order in which they are selected: lowest tier, then lowest turn.

    `is_partial` says that the database holds more eligible keys than were read. A partial rotation is exact as long
    as more candidates were read than there are selections to make plus keys to avoid; `take` answers None when
    it can't be sure, and the caller reads more.
    """

    def __init__(self, candidates: Iterable[Candidate], *, is_partial: bool = False) -> None:
        self._candidates = list(candidates)  # in the database's order, which breaks ties between equal turns
        self.is_partial = is_partial

    def take(self, avoid: Collection[UUID], turn: int) -> Candidate | None:
        """The next key that is not in `avoid`; with `turn`, higher than any yet, it moves to the end of its tier."""
        candidates, index = self._candidates, 0
        if avoid:
            index = next((n for n, each in enumerate(candidates) if each.key_id not in avoid), len(candidates))
        if index == len(candidates):
            return None
        candidate = candidates.pop(index)
        candidate.turn = turn
        candidate.times_selected += 1
        if not candidates or candidates[-1].tier <= candidate.tier:
            candidates.append(candidate)
        else:
            bisect.insort(candidates, candidate, key=_order)
        return candidate

    def drop(self, is_dropped: Callable[[Candidate], bool]) -> None:
        """Leave out the keys that another request of this batch tries now."""
        self._candidates = [candidate for candidate in self._candidates if not is_dropped(candidate)]

    def __len__(self) -> int:
        return len(self._candidates)
