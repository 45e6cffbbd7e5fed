"""The beat of a lane: what others see of it, what it settles, and what it must not raise."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from keys.heartbeat import Heartbeat
from keys.journal import Journal
from keys.models import InFlight, RequestLog, Worker
from keys.services.recovery import DeathWatch
from tests.integration.keys.ledger_rows import in_flight, settlement_of

pytestmark = pytest.mark.django_db

ME, OTHER = uuid.uuid4(), uuid.uuid4()


def heartbeat(
    folder: Path | None = None, *, worker: uuid.UUID = ME, death: float = 20.0, every: float = 5.0
) -> Heartbeat:
    watch = DeathWatch(death, longest_gap_seconds=60)
    return Heartbeat(worker=worker, role="web", every_seconds=every, watch=watch, clock=timezone.now, journals=folder)


def fail(*_: Any) -> Any:
    raise OperationalError("gone")


def test_the_first_beat_is_due_at_once_and_the_next_in_its_interval() -> None:
    beating = heartbeat(every=1000)
    assert beating.due_in_seconds() == 0

    beating.beat()

    assert 900 < beating.due_in_seconds() <= 1000


def test_a_failed_beat_is_not_tried_again_before_its_time() -> None:
    beating = heartbeat(every=1000)

    with pytest.raises(OperationalError), transaction.atomic(), connection.execute_wrapper(fail):
        beating.beat()

    assert beating.due_in_seconds() > 900


def test_each_beat_counts() -> None:
    beating = heartbeat()

    beats = []
    for _ in range(3):
        beating.beat()
        beats.append(Worker.objects.get().beat)

    assert (Worker.objects.get().pk, Worker.objects.get().role) == (ME, "web")
    assert beats == [beats[0], beats[0] + 1, beats[0] + 2]


def test_who_was_taken_for_dead_registers_again() -> None:
    beating = heartbeat()
    beating.beat()
    Worker.objects.all().delete()

    beating.beat()

    assert Worker.objects.get().pk == ME


def test_it_leaves_in_an_orderly_way() -> None:
    beating, other = heartbeat(), heartbeat(worker=OTHER)
    beating.beat()
    other.beat()

    beating.end()

    assert Worker.objects.get().pk == OTHER


def test_it_settles_what_dead_ones_left_and_not_its_own() -> None:
    mine, left = in_flight(ME), in_flight(OTHER)
    beating = heartbeat(death=0.0)

    beating.beat()

    assert RequestLog.objects.get().pk == left.pk
    assert InFlight.objects.get().pk == mine.pk


def test_who_beats_is_not_taken_for_dead() -> None:
    in_flight(OTHER)
    beating, other = heartbeat(death=0.001), heartbeat(worker=OTHER)

    for _ in range(5):
        other.beat()
        beating.beat()

    assert InFlight.objects.count() == 1


def test_it_replays_the_journals_of_the_dead_and_not_its_own(tmp_path: Path) -> None:
    mine = Journal(tmp_path, ME, max_bytes=10**6)
    mine.record(settlement_of(uuid.uuid4()))
    left = Journal(tmp_path, OTHER, max_bytes=10**6)
    item = settlement_of(uuid.uuid4())
    left.record(item)
    left.close()

    heartbeat(tmp_path).beat()

    assert RequestLog.objects.get().pk == item.id
    assert [path.name for path in tmp_path.iterdir()] == [f"{ME}.journal"]
    mine.close()


def test_a_large_journal_is_replayed_over_several_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane has requests to serve meanwhile; and nobody is looked for by beats before the journals are read."""
    monkeypatch.setattr("keys.heartbeat.REPLAY_SECONDS", 0.0)
    monkeypatch.setattr("keys.services.recovery._ROWS_PER_TRANSACTION", 2)
    left = Journal(tmp_path, OTHER, max_bytes=10**6)
    for _ in range(3):
        left.record(settlement_of(in_flight(OTHER).id))
    left.close()
    beating = heartbeat(tmp_path, death=0.0, every=1000)

    beating.beat()
    assert RequestLog.objects.count() == 1
    assert beating.due_in_seconds() < 1

    for _ in range(9):
        beating.beat()
    assert set(RequestLog.objects.values_list("status", flat=True)) == {200}
    assert (RequestLog.objects.count(), list(tmp_path.iterdir())) == (3, [])
    assert beating.due_in_seconds() > 900


def test_a_replay_that_is_left_in_the_middle_is_free_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.services.recovery._ROWS_PER_TRANSACTION", 2)
    left = Journal(tmp_path, OTHER, max_bytes=10**6)
    for _ in range(3):
        left.record(settlement_of(uuid.uuid4()))
    left.close()
    beating = heartbeat(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("keys.heartbeat.REPLAY_SECONDS", 0.0)
        beating.beat()

    beating.end()
    heartbeat(tmp_path, worker=OTHER).beat()

    assert RequestLog.objects.count() == 3
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_fails_at_any_statement_makes_the_watch_begin_anew(tmp_path: Path) -> None:
    """Each statement of a beat is made to fail once; never is anybody found dead by the beat after it."""
    in_flight(OTHER)
    statements = count_statements(heartbeat(worker=OTHER))

    assert statements > 3
    for n in range(statements):
        beating = heartbeat(death=0.0001)
        beating.watch.look({OTHER: None}, 0.0)
        with pytest.raises(OperationalError), transaction.atomic(), connection.execute_wrapper(FailAt(n)):
            beating.beat()
        assert beating.watch._last_look is None


class FailAt:
    """Lets `n` statements pass and refuses the next."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __call__(self, execute: Any, *arguments: Any) -> Any:
        if self._left == 0:
            raise OperationalError("gone")
        self._left -= 1
        return execute(*arguments)


def count_statements(beating: Heartbeat) -> int:
    seen = []

    def note(execute: Any, *arguments: Any) -> Any:
        seen.append(arguments[0])
        return execute(*arguments)

    with connection.execute_wrapper(note):
        beating.beat()
    return len(seen) - 1  # at a first beat one more, to make the row


def test_trouble_that_is_not_the_databases_does_not_end_the_lane(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "journal"
    folder.write_text("not a folder")

    class Broken(DeathWatch):
        def look(self, *_: Any) -> set[uuid.UUID]:
            raise TypeError("a bug")

    beating = heartbeat(folder)
    beating.watch = Broken(20.0, longest_gap_seconds=60)

    beating.beat()

    assert Worker.objects.get().pk == ME
    assert [record.event for record in caplog.records] == ["recovery.failed"]  # type: ignore[attr-defined]
