"""The round robin as a pure value, held against the plainest model of it."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.selection import Candidate, Rotation

A, B, C, D = (uuid.UUID(int=n) for n in (1, 2, 3, 4))


def candidate(key_id: uuid.UUID, *, tier: int = 1, turn: int = 0, account: uuid.UUID | None = None) -> Candidate:
    return Candidate(key_id, account, name=str(key_id), tail="...abc1", secret=b"", tier=tier, turn=turn)


def counter(first: int = 100) -> Iterator[int]:
    return itertools.count(first)


def take(rotation: Rotation, turns: Iterator[int], *avoid: uuid.UUID) -> uuid.UUID | None:
    taken = rotation.take(avoid, next(turns))
    return taken.key_id if taken else None


def test_keys_are_taken_in_turn() -> None:
    rotation, turns = Rotation([candidate(A), candidate(B), candidate(C)]), counter()
    assert [take(rotation, turns) for _ in range(6)] == [A, B, C, A, B, C]


def test_the_key_that_waited_longest_is_first() -> None:
    rotation = Rotation([candidate(B, turn=3), candidate(A, turn=7), candidate(C, turn=9)])
    assert take(rotation, counter()) == B


def test_a_higher_tier_waits_until_the_lower_one_is_used_up() -> None:
    rotation, turns = Rotation([candidate(A, tier=1, turn=50), candidate(B, tier=2, turn=0)]), counter()
    assert [take(rotation, turns) for _ in range(3)] == [A, A, A]
    assert take(rotation, turns, A) == B


def test_a_key_in_avoid_keeps_its_place() -> None:
    rotation, turns = Rotation([candidate(A), candidate(B), candidate(C)]), counter()
    assert take(rotation, turns, A) == B
    assert take(rotation, turns) == A


def test_nothing_is_left_when_all_are_avoided() -> None:
    rotation = Rotation([candidate(A), candidate(B)])
    assert take(rotation, counter(), A, B) is None


def test_a_taken_key_carries_its_new_turn_and_how_often_it_was_taken() -> None:
    rotation, turns = Rotation([candidate(A)]), counter()
    for _ in range(3):
        taken = rotation.take((), next(turns))
    assert taken is not None
    assert (taken.turn, taken.times_selected) == (102, 3)


def test_a_dropped_key_is_not_taken_again() -> None:
    rotation, turns = Rotation([candidate(A, account=D), candidate(B), candidate(C, account=D)]), counter()
    rotation.drop(lambda other: other.account_id == D)
    assert [take(rotation, turns) for _ in range(2)] == [B, B]
    assert len(rotation) == 1


@pytest.mark.parametrize("keys", [1, 2, 3, 7])
def test_every_key_gets_the_same_share(keys: int) -> None:
    rotation, turns = Rotation([candidate(uuid.UUID(int=n)) for n in range(keys)]), counter()
    shares = Counter(take(rotation, turns) for _ in range(keys * 100))
    assert set(shares.values()) == {100}


# -- against the plainest model --------------------------------------------------------------------------------------
class NaiveRotation:
    """The lowest (tier, turn) of those that may be taken; of equal ones the first of the list."""

    def __init__(self, places: Sequence[tuple[int, int]]) -> None:
        self.places = {uuid.UUID(int=index): [tier, turn] for index, (tier, turn) in enumerate(places)}

    def take(self, avoid: Collection[uuid.UUID], turns: Iterator[int]) -> uuid.UUID | None:
        free = [key_id for key_id in self.places if key_id not in avoid]
        if not free:
            return None
        first = min(free, key=lambda key_id: self.places[key_id])
        self.places[first][1] = next(turns)
        return first


def in_order(places: Sequence[tuple[int, int]]) -> list[Candidate]:
    found = [candidate(uuid.UUID(int=index), tier=tier, turn=turn) for index, (tier, turn) in enumerate(places)]
    return sorted(found, key=lambda one: (one.tier, one.turn))


PLACES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=8)
TAKES = st.lists(st.sets(st.integers(0, 7), max_size=6), max_size=30)


@given(places=PLACES, takes=TAKES)
def test_any_sequence_of_takes_equals_the_plainest_model(places: list[tuple[int, int]], takes: list[set[int]]) -> None:
    rotation, naive = Rotation(in_order(places)), NaiveRotation(places)
    turns, same_turns = counter(), counter()
    for avoid in takes:
        avoided = {uuid.UUID(int=index) for index in avoid}
        assert take(rotation, turns, *avoided) == naive.take(avoided, same_turns)


@given(places=PLACES, takes=st.lists(st.sets(st.integers(0, 7), max_size=3), max_size=5), data=st.data())
def test_a_partial_list_answers_as_the_whole_one_or_not_at_all(
    places: list[tuple[int, int]], takes: list[set[int]], data: st.DataObject
) -> None:
    """It is read with room for all the takes and for what they avoid; see `Rotation`."""
    needed = len(takes) + max((len(avoid) for avoid in takes), default=0)
    read = data.draw(st.integers(needed, needed + 3), label="candidates read")
    rotation = Rotation(in_order(places)[:read], is_partial=read < len(places))
    naive = NaiveRotation(places)
    turns, same_turns = counter(), counter()
    for avoid in takes:
        avoided = {uuid.UUID(int=index) for index in avoid}
        assert take(rotation, turns, *avoided) == naive.take(avoided, same_turns)
