"""Request ids: version 7 of RFC 9562, and only growing within a process."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid

import pytest

from keys.uuid7 import Uuid7Source, new_request_uuid, request_id_of


def test_an_id_is_a_version_7_uuid() -> None:
    made = Uuid7Source()()
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_an_id_holds_its_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    stamp = new_request_uuid().int >> 80
    assert before <= stamp <= before + 10_000


def test_ids_grow_within_a_millisecond() -> None:
    source = Uuid7Source()
    made = [source() for _ in range(5_000)]
    assert made == sorted(set(made))


def test_ids_grow_when_the_clock_is_turned_back(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Uuid7Source()
    first = source()
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    monkeypatch.setattr(time, "time_ns", lambda: int(yesterday.timestamp() * 1e9))
    second, third = source(), source()
    assert first < second < third
    assert {second.version, third.version} == {7}


def test_ids_of_several_threads_are_all_different() -> None:
    source = Uuid7Source()
    made: list[uuid.UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(source() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2_000


def test_the_request_id_shows_the_uuid() -> None:
    made = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    assert request_id_of(made) == "req_01890a5dac96774bbcceb302099a8057"


@pytest.mark.parametrize(
    ("last", "following"),
    [
        pytest.param("01890a5d-ac96-774b-8000-000000000000", "01890a5d-ac96-774b-8000-000000000001", id="next"),
        pytest.param("01890a5d-ac96-774b-bfff-ffffffffffff", "01890a5d-ac96-774c-8000-000000000000", id="past variant"),
        pytest.param("01890a5d-ac96-7fff-bfff-ffffffffffff", "01890a5d-ac97-7000-8000-000000000000", id="past version"),
    ],
)
def test_the_next_id_passes_over_the_fixed_bits(last: str, following: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    source = Uuid7Source()
    source._last = uuid.UUID(last).int
    assert source() == uuid.UUID(following)
