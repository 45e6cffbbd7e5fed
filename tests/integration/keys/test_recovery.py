"""What dead processes left: found by journal and by beat, settled once, improved by who knows better."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from django.db import connection, transaction
from django.utils import timezone

from keys import tasks
from keys.causes import Cause, Failure
from keys.journal import Journal, to_document
from keys.ledger_items import Caller, FailedTry, Selection, Settlement, Tokens
from keys.models import Attempt, Cooldown, CostInquiry, CostSource, InFlight, RequestLog, Worker
from keys.services import recovery
from keys.services.costs import settle_costs
from keys.services.recovery import (
    DeathWatch,
    Patrol,
    read_beats,
    recover_journals,
    recovery_steps,
    replay,
    settle_the_dead,
    settle_worker,
)
from keys.steps import settlement
from tests.integration.keys.ledger import recorded_statements
from tests.integration.keys.ledger_rows import CLIENT, KEY, MODEL, in_flight, pool_key, settle, settlement_of

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parents[3]
SECOND = dt.timedelta(seconds=1)
A, B = uuid.UUID(int=0xA), uuid.UUID(int=0xB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def worker_row(worker: uuid.UUID, beat: int = 1) -> Worker:
    return Worker.objects.create(id=worker, host="here", pid=1, role="web", beat=beat, beat_at=timezone.now())


def trial_of(request: uuid.UUID) -> Cooldown:
    now = timezone.now()
    key = pool_key(f"sk-or-v1-test-recovery-{request.hex[:6]}")
    return Cooldown.objects.create(
        key_id=key, cause=Cause.KEY_RATE_LIMITED, started_at=now, until=now, trial=request, trial_at=now
    )


def failed_try() -> FailedTry:
    selection = Selection(KEY, None, "prod-1", "...abc1", b"", 5, is_trial=False)
    failure = Failure(Cause.PROVIDER_BUSY, 529, "overloaded_error", "busy", upstream_status=503)
    return FailedTry(1, selection, failure, 12, timezone.now())


def left_journal(folder: Path, worker: uuid.UUID, *items: Settlement, **generations: str) -> None:
    """The journal of a process that is gone; generations by the request's hex digits."""
    journal = Journal(folder, worker, max_bytes=10**7)
    for request, name in generations.items():
        journal.note_generation(uuid.UUID(hex=request.removeprefix("r")), name)
    for item in items:
        journal.record(item)
    os.close(journal._fd)  # as the kernel does it at a SIGKILL


# -- the dead worker's rows ------------------------------------------------------------------------------------------
def test_what_a_dead_worker_left_is_settled_as_unknown() -> None:
    worker_row(A)
    row = in_flight(A)
    now = timezone.now()

    assert settle_worker(A, now) == 1

    lost = RequestLog.objects.get()
    assert (lost.id, lost.client_id, lost.key_id, lost.model_sent) == (row.id, CLIENT, KEY, MODEL)
    assert (lost.status, lost.error_type, lost.cause) == (500, "api_error", Cause.INTERRUPTED)
    assert (lost.cost_nano, lost.cost_source, lost.recorded_at) == (None, CostSource.UNKNOWN, now)
    assert lost.request_id == f"req_{row.id.hex}"
    assert lost.latency_ms >= 3000
    assert not InFlight.objects.exists()
    assert not Worker.objects.exists()


def test_the_requests_of_others_are_left_alone() -> None:
    in_flight(A)
    other = in_flight(B)
    worker_row(B)

    settle_worker(A, timezone.now())

    assert InFlight.objects.get().pk == other.pk
    assert Worker.objects.get().pk == B


def test_more_rows_than_fit_one_transaction_are_all_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_ROWS_PER_TRANSACTION", 2)
    for _ in range(5):
        in_flight(A)

    assert settle_worker(A, timezone.now()) == 5
    assert RequestLog.objects.count() == 5


def test_a_dead_requests_trial_is_free_again() -> None:
    row = in_flight(A)
    cooldown, other = trial_of(row.id), trial_of(uuid.uuid4())

    settle_worker(A, timezone.now())

    cooldown.refresh_from_db()
    other.refresh_from_db()
    assert (cooldown.trial, cooldown.cleared_at) == (None, None)
    assert other.trial is not None


def test_the_pool_is_locked_before_the_requests_and_these_before_they_are_written() -> None:
    in_flight(A)

    with recorded_statements() as texts:
        settle_worker(A, timezone.now())

    on_sqlite = (
        "SELECT turn FROM keys_pool",
        "DELETE FROM keys_inflight WHERE id",
        "INSERT INTO keys_requestlog",
    )
    on_postgresql = ("EXECUTE opensvm_lock", "EXECUTE opensvm_settle")  # it locks them, deletes them and inserts
    parts = on_sqlite if connection.vendor == "sqlite" else on_postgresql
    order = [next(n for n, text in enumerate(texts) if part in text) for part in parts]
    assert order == sorted(order)
    updates = [n for n, text in enumerate(texts) if text.startswith('UPDATE "keys_cooldown"')]
    assert updates
    assert min(updates) > order[0]


# -- journals --------------------------------------------------------------------------------------------------------
def test_a_journals_settlement_is_the_row(folder: Path) -> None:
    row = in_flight(A)
    item = settlement_of(row.id, failures=(failed_try(),))
    left_journal(folder, A, item)

    assert recover_journals(folder, timezone.now()) == 1

    written = RequestLog.objects.get()
    assert (written.status, written.cost_nano, written.cost_source) == (200, 12_345, CostSource.REPORTED)
    assert (written.input_tokens, written.cache_write_tokens) == (10, 40)
    assert (Attempt.objects.get().cause, Attempt.objects.get().request_id) == (Cause.PROVIDER_BUSY, row.id)
    assert not InFlight.objects.exists()
    assert list(folder.iterdir()) == []


def test_what_the_journal_does_not_settle_is_lost_but_its_generation_is_known(folder: Path) -> None:
    settled, lost = in_flight(A), in_flight(A)
    left_journal(folder, A, settlement_of(settled.id), **{f"r{lost.id.hex}": "gen-lost"})

    assert recover_journals(folder, timezone.now()) == 2

    row = RequestLog.objects.get(pk=lost.id)
    assert (row.cause, row.cost_source, row.generation_id) == (Cause.INTERRUPTED, CostSource.UNKNOWN, "gen-lost")


@pytest.mark.parametrize("times", [2, 3])
def test_a_replay_counts_once_however_often_it_runs(times: int) -> None:
    row = in_flight(A)
    items = [settlement_of(row.id, failures=(failed_try(),)), settlement_of(uuid.uuid4())]
    first = timezone.now()

    for n in range(times):
        assert replay(items, first + n * SECOND) == []

    assert {written.recorded_at for written in RequestLog.objects.all()} == {first}
    assert (RequestLog.objects.count(), Attempt.objects.count()) == (2, 1)
    assert sum(written.cost_nano or 0 for written in RequestLog.objects.all()) == 2 * 12_345


def test_a_replay_that_was_killed_half_way_is_finished_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_ROWS_PER_TRANSACTION", 1)
    items = [settlement_of(in_flight(A).id) for _ in range(3)]
    left_journal(folder, A, *items)
    replay(items[:1], timezone.now())

    assert recover_journals(folder, timezone.now()) == 3
    assert RequestLog.objects.count() == 3


def test_a_replay_can_be_left_and_taken_up_and_keeps_others_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_ROWS_PER_TRANSACTION", 4)  # lines, of which every other one is empty
    left_journal(folder, A, *[settlement_of(in_flight(A).id) for _ in range(6)])
    steps = recovery_steps(folder, timezone.now)

    assert next(steps) == 2
    assert (RequestLog.objects.count(), recover_journals(folder, timezone.now())) == (2, 0)

    assert sum(steps) == 4
    assert (RequestLog.objects.count(), list(folder.iterdir())) == (6, [])


def test_each_step_is_recorded_at_its_own_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Roll-ups look for rows by the time they were recorded: a long replay must not hide behind its beginning."""
    monkeypatch.setattr(recovery, "_ROWS_PER_TRANSACTION", 2)
    left_journal(folder, A, *[settlement_of(in_flight(A).id) for _ in range(2)])
    times = iter(timezone.now() + n * SECOND for n in range(9))

    assert sum(recovery_steps(folder, lambda: next(times))) == 2
    assert len(set(RequestLog.objects.values_list("recorded_at", flat=True))) == 2


def test_a_replay_of_what_is_known_takes_few_queries(django_assert_max_num_queries: Any) -> None:
    items = [settlement_of(uuid.uuid4()) for _ in range(50)]
    replay(items, timezone.now())

    with django_assert_max_num_queries(8):
        replay(items, timezone.now())


def test_a_replay_frees_the_trial_of_its_request() -> None:
    row = in_flight(A)
    cooldown = trial_of(row.id)

    replay([settlement_of(row.id, holds_trial=True)], timezone.now())

    cooldown.refresh_from_db()
    assert (cooldown.trial, cooldown.cleared_at) == (None, None)


def test_a_late_journal_brings_the_generations_of_what_was_given_up(folder: Path) -> None:
    """Another machine had settled its requests by the beat alone, and the cost was estimated meanwhile."""
    unknown, estimated = in_flight(A), in_flight(A)
    settle_worker(A, timezone.now())
    RequestLog.objects.filter(pk=estimated.id).update(cost_source=CostSource.ESTIMATED, cost_nano=0)
    left_journal(folder, A, **{f"r{unknown.id.hex}": "gen-1", f"r{estimated.id.hex}": "gen-2"})
    now = timezone.now()

    recover_journals(folder, now)

    assert dict(RequestLog.objects.values_list("pk", "generation_id")) == {unknown.id: "gen-1", estimated.id: "gen-2"}
    assert (CostInquiry.objects.get().request_id, CostInquiry.objects.get().next_at) == (estimated.id, now)


def test_one_row_that_the_database_refuses_does_not_stop_the_others(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A number beyond 64 bits is no Settlement of ours, but a bad disk may make it one."""
    good = [settlement_of(in_flight(A).id) for _ in range(4)]
    poison = settlement_of(in_flight(A).id, tokens=Tokens(output=2**70))
    left_journal(folder, A, *good[:2], poison, *good[2:])

    with caplog.at_level(logging.ERROR, logger="opensvm"):
        assert recover_journals(folder, timezone.now()) == 5

    row = RequestLog.objects.get(pk=poison.id)
    assert (row.flagged, row.cost_nano, row.output_tokens, row.model_asked) == (True, 12_345, 0, "")
    assert RequestLog.objects.filter(flagged=False).count() == 4
    assert [record.event for record in caplog.records] == ["ledger.poison"]  # type: ignore[attr-defined]
    assert list(folder.iterdir()) == []


def test_a_journal_with_what_can_never_be_stored_is_set_aside_once(folder: Path) -> None:
    good, hopeless = settlement_of(in_flight(A).id), settlement_of(in_flight(A).id, cost_nano=2**70)
    left_journal(folder, A, good, hopeless)

    assert recover_journals(folder, timezone.now()) == 2  # the hopeless one as lost
    assert recover_journals(folder, timezone.now()) == 0

    assert [path.name for path in folder.iterdir()] == [f"{A}.journal.bad"]
    assert RequestLog.objects.get(pk=hopeless.id).cost_source == CostSource.UNKNOWN
    assert not InFlight.objects.exists()


def test_a_journal_that_can_not_be_read_does_not_stop_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_journal(folder, A, settlement_of(in_flight(A).id))
    left_journal(folder, B, settlement_of(in_flight(B).id))
    real_open = Path.open

    def open_unless_bad(path: Path, *arguments: Any) -> Any:
        if str(A) in path.name:
            raise OSError("input/output error")
        return real_open(path, *arguments)

    monkeypatch.setattr(Path, "open", open_unless_bad)
    assert recover_journals(folder, timezone.now()) == 1
    assert [path.name for path in folder.iterdir()] == [f"{A}.journal"]


def test_a_journal_stays_when_the_database_does_not_take_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    left_journal(folder, A, settlement_of(in_flight(A).id))

    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(settlement, "settle", refuse)
        with pytest.raises(OperationalError):
            recover_journals(folder, timezone.now())
    assert recover_journals(folder, timezone.now()) == 1


OWNER = """
import json, sys, time, uuid
from pathlib import Path
from keys.journal import Journal, from_document
journal = Journal(Path(sys.argv[1]), uuid.UUID(sys.argv[2]), max_bytes=10**6)
journal.note_generation(uuid.UUID(sys.argv[3]), "gen-lost")
journal.record(from_document(json.loads(sys.argv[4])))
print("recorded", flush=True)
time.sleep(60)
"""


def test_a_process_that_was_killed_is_recovered_and_a_living_one_is_not(folder: Path) -> None:
    settled, lost = in_flight(A), in_flight(A)
    arguments = [str(folder), str(A), str(lost.id), json.dumps(to_document(settlement_of(settled.id)))]
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"recorded\n"
        assert recover_journals(folder, timezone.now()) == 0
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate(timeout=10)

    assert recover_journals(folder, timezone.now()) == 2
    assert RequestLog.objects.get(pk=settled.id).cost_nano == 12_345
    assert RequestLog.objects.get(pk=lost.id).generation_id == "gen-lost"


def test_the_cost_of_a_killed_request_is_asked_by_the_generation_of_the_journal(folder: Path) -> None:
    key = pool_key("sk-or-v1-test-recovery-kill")
    lost = in_flight(A, key_id=key)
    left_journal(folder, A, **{f"r{lost.id.hex}": "gen-lost"})
    recover_journals(folder, timezone.now())

    def tell(request: httpx.Request) -> httpx.Response:
        assert request.url.params["id"] == "gen-lost"
        return httpx.Response(200, json={"data": {"id": "gen-lost", "total_cost": "0.5"}})

    assert settle_costs(timezone.now(), transport=httpx.MockTransport(tell)) == 1
    assert RequestLog.objects.get().cost_nano == 500_000_000


# -- who was taken for dead ------------------------------------------------------------------------------------------
def test_a_slow_worker_brings_outcome_and_cost_of_what_was_given_up() -> None:
    row = in_flight(A)
    settle_worker(A, timezone.now())
    now = timezone.now()

    assert settle(settlement_of(row.id, failures=(failed_try(),)), now=now) == []

    improved = RequestLog.objects.get()
    assert (improved.status, improved.error_type, improved.cause) == (200, "", "")
    assert (improved.cost_nano, improved.cost_source, improved.generation_id) == (12_345, CostSource.REPORTED, "gen-1")
    assert (improved.stream, improved.model_asked, improved.client_ip) == (True, "claude", "192.0.2.1")
    assert (improved.output_tokens, improved.recorded_at) == (20, now)
    assert Attempt.objects.count() == 1


def test_a_slow_worker_that_knows_no_cost_brings_tokens_and_generation() -> None:
    row = in_flight(A)
    settle_worker(A, timezone.now())

    settle(settlement_of(row.id, status=499, cause="client_left", cost_nano=None, cost_source="unknown"))

    improved = RequestLog.objects.get()
    assert (improved.cause, improved.output_tokens, improved.generation_id) == ("client_left", 20, "gen-1")
    assert not CostInquiry.objects.exists()  # an unknown cost is asked about anyway


def test_an_estimate_made_of_less_is_asked_about_again() -> None:
    row = in_flight(A)
    settle_worker(A, timezone.now())
    RequestLog.objects.update(cost_source=CostSource.ESTIMATED, cost_nano=0)

    settle(settlement_of(row.id, cost_nano=None, cost_source="unknown"))

    assert RequestLog.objects.get().output_tokens == 20
    assert CostInquiry.objects.get().request_id == row.id


def test_a_request_that_is_in_flight_again_after_it_was_settled_is_improved_and_leaves() -> None:
    """Its admission was repeated by a worker that had been taken for dead."""
    row = in_flight(A)
    settle_worker(A, timezone.now())
    in_flight(A, id=row.id)

    assert settle(settlement_of(row.id), settlement_of(uuid.uuid4())) != []

    assert (RequestLog.objects.get(pk=row.id).status, RequestLog.objects.count()) == (200, 2)
    assert not InFlight.objects.exists()
    in_flight(A, id=row.id)
    assert settle_worker(A, timezone.now()) == 1
    assert (RequestLog.objects.get(pk=row.id).status, InFlight.objects.count()) == (200, 0)


# -- which source wins -----------------------------------------------------------------------------------------------
SOURCES = list(CostSource)
COSTS = {CostSource.UNKNOWN: None, CostSource.ESTIMATED: 1, CostSource.RECONCILED: 2, CostSource.REPORTED: 3}


@pytest.mark.parametrize("late", SOURCES)
@pytest.mark.parametrize("early", SOURCES)
def test_the_better_source_wins(early: CostSource, late: CostSource) -> None:
    order = [CostSource.UNKNOWN, CostSource.ESTIMATED, CostSource.RECONCILED, CostSource.REPORTED]
    first, now = timezone.now() - SECOND, timezone.now()
    item = settlement_of(uuid.uuid4(), cost_source=early.value, cost_nano=COSTS[early])
    settle(item, now=first)
    repeat = msgspec.structs.replace(item, cost_source=late.value, cost_nano=COSTS[late], tokens=Tokens(1, 1, 1, 1))

    changed = settlement.improve(repeat, now)

    row = RequestLog.objects.get()
    is_better = order.index(late) > order.index(early)
    assert changed is is_better
    assert row.cost_source == (late if is_better else early)
    assert row.cost_nano == COSTS[late if is_better else early]
    assert row.output_tokens == (1 if is_better else 20)
    assert row.recorded_at == (now if is_better else first)


@pytest.mark.parametrize(
    ("early", "late", "cause"),
    [
        pytest.param("interrupted", "", "", id="an outcome replaces a death"),
        pytest.param("interrupted", "client_left", "client_left", id="a failure replaces a death"),
        pytest.param("interrupted", "interrupted", "interrupted", id="a death stays one"),
        pytest.param("", "client_left", "", id="an outcome stays"),
        pytest.param("client_left", "", "client_left", id="a failure stays"),
        pytest.param("", "interrupted", "", id="a death replaces nothing"),
    ],
)
def test_only_the_outcome_of_a_death_changes(early: str, late: str, cause: str) -> None:
    item = settlement_of(uuid.uuid4(), cause=early)
    settle(item)

    settlement.improve(msgspec.structs.replace(item, cause=late, caller=Caller("", "", "")), timezone.now())

    assert RequestLog.objects.get().cause == cause


def test_a_reconciled_death_keeps_its_billed_tokens() -> None:
    item = settlement_of(uuid.uuid4(), cause="interrupted", cost_source="reconciled")
    settle(item)
    late = msgspec.structs.replace(item, cause="", cost_source="unknown", cost_nano=None, tokens=Tokens(1, 1, 1, 1))

    settlement.improve(late, timezone.now())

    row = RequestLog.objects.get()
    assert (row.cause, row.cost_source, row.output_tokens) == ("", CostSource.RECONCILED, 20)


# -- who is dead -----------------------------------------------------------------------------------------------------
Look = tuple[float, dict[uuid.UUID, int | None]]


@pytest.mark.parametrize(
    ("looks", "dead"),
    [
        pytest.param([(0, {A: 1})], set(), id="one look proves nothing"),
        pytest.param([(0, {A: 1}), (10, {A: 1})], set(), id="not long enough"),
        pytest.param([(0, {A: 1}), (10, {A: 1}), (20, {A: 1})], {A}, id="stood still"),
        pytest.param([(0, {A: 1}), (10, {A: 2}), (20, {A: 2})], set(), id="it beat meanwhile"),
        pytest.param([(0, {A: 1}), (10, {A: 2}), (20, {A: 2}), (30, {A: 2})], {A}, id="stood still since its beat"),
        pytest.param([(0, {A: 5}), (10, {A: 0}), (20, {A: 0})], set(), id="its row was made anew"),
        pytest.param([(0, {A: None}), (10, {A: None}), (20, {A: None})], {A}, id="in flight without a row"),
        pytest.param([(0, {A: None}), (10, {A: 1}), (20, {A: 1})], set(), id="its row came later"),
        pytest.param([(0, {A: 1}), (10, {A: 1, B: 1}), (20, {A: 1, B: 1})], {A}, id="each for itself"),
        pytest.param([(0, {A: 1}), (10, {}), (20, {A: 1})], set(), id="it was gone between"),
        pytest.param([(0, {A: 1}), (16, {A: 1}), (21, {A: 1})], set(), id="a gap between looks begins anew"),
        pytest.param([(0, {A: 1}), (16, {A: 1}), (26, {A: 1}), (36, {A: 1})], {A}, id="and counts from after the gap"),
    ],
)
def test_who_is_dead(looks: list[Look], dead: set[uuid.UUID]) -> None:
    watch = DeathWatch(death_seconds=20, longest_gap_seconds=15)

    found = [watch.look(beats, at) for at, beats in looks]

    assert found[-1] == dead
    assert not any(found[:-1])


def test_an_outage_does_not_look_like_a_massacre() -> None:
    watch = DeathWatch(death_seconds=20, longest_gap_seconds=15)
    watch.look({A: 1, B: 1}, 0)
    watch.look({A: 1, B: 1}, 10)
    watch.forget()  # the database did not answer

    assert watch.look({A: 1, B: 1}, 20) == set()
    assert watch.look({A: 1, B: 2}, 30) == set()
    assert watch.look({A: 1, B: 3}, 40) == {A}


def test_who_has_something_in_flight_is_watched_with_and_without_a_row() -> None:
    worker_row(A, beat=7)
    in_flight(A)
    in_flight(B)
    in_flight(None)

    assert read_beats() == {A: 7, B: None}


# -- the round of one process ----------------------------------------------------------------------------------------
def still_watch() -> DeathWatch:
    """Takes everybody for dead at once."""
    return DeathWatch(death_seconds=0, longest_gap_seconds=60)


def test_journals_come_before_beats(folder: Path) -> None:
    row = in_flight(A)
    worker_row(A)
    left_journal(folder, A, settlement_of(row.id))

    assert settle_the_dead(still_watch(), timezone.now, journals=folder) == 1
    assert RequestLog.objects.get().status == 200


def test_nobody_settles_itself() -> None:
    in_flight(A)

    assert settle_the_dead(still_watch(), timezone.now, myself=A) == 0
    assert settle_the_dead(still_watch(), timezone.now) == 1


def test_a_patrol_keeps_its_watch_over_its_rounds(folder: Path) -> None:
    patrol = Patrol(DeathWatch(death_seconds=0.05, longest_gap_seconds=60), folder)
    in_flight(A)

    assert patrol.walk() == 0
    assert wait_for(lambda: patrol.walk()) == 1


def test_a_patrol_begins_anew_when_the_database_failed(folder: Path) -> None:
    watch = DeathWatch(death_seconds=0.05, longest_gap_seconds=60)
    patrol = Patrol(watch, folder)
    in_flight(A)
    patrol.walk()
    wait_for(lambda: True, after=0.06)

    with pytest.raises(Exception, match="nothere"), transaction.atomic(), connection.execute_wrapper(fail):
        patrol.walk()

    assert patrol.walk() == 0
    assert wait_for(lambda: patrol.walk()) == 1


def test_two_threads_do_not_walk_at_once(folder: Path) -> None:
    patrol = Patrol(still_watch(), folder)
    in_flight(A)
    with patrol._guard:
        assert patrol.walk() == 0

    assert patrol.walk() == 1


def test_the_background_task_finds_the_dead_over_its_runs(folder: Path, settings: Any) -> None:
    settings.DEATH_SECONDS, settings.JOURNAL_DIR = 0.05, folder
    tasks._patrol.cache_clear()  # made from other settings, perhaps
    in_flight(A)

    def run() -> bool:
        tasks.recover()
        return RequestLog.objects.exists()

    try:
        assert not run()
        assert wait_for(run)
    finally:
        tasks._patrol.cache_clear()


def fail(*_: Any) -> Any:
    from django.db import OperationalError

    raise OperationalError("nothere")


def wait_for(question: Any, after: float = 0.0, seconds: float = 10.0) -> Any:
    """The first true answer."""
    pause = threading.Event()
    pause.wait(after)
    for _ in range(int(seconds / 0.02)):
        if answer := question():
            return answer
        pause.wait(0.02)
    raise AssertionError("it did not become true in time")
