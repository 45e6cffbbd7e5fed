"""The lane with its thread: batches, two lanes on one database, and rows that the database refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from django.db import IntegrityError, connections
from django.utils import timezone

from keys.causes import Cause
from keys.lane import MAX_BATCH, Lane, LaneFull, LaneStopped
from keys.lane_watch import Patience
from keys.ledger_items import Admit, Admitted, LaneItem, LaneResult, NoKey, PassTrial, Settlement, Tokens
from keys.models import Account, Attempt, Cooldown, CostSource, InFlight, OpenRouterKey, RequestLog
from keys.services.clients import revoke_client
from keys.services.cooldowns import clear_cooldowns
from keys.services.keys import disable_key, enable_key
from keys.services.maintenance import reset_cooldowns
from tests.integration.keys.ledger import (
    ALICE,
    RULES,
    add_client,
    add_keys,
    admit,
    failed_try,
    run,
    settlement,
    switch,
)

PATIENCE = Patience(admit_seconds=15.0)  # a busy machine's disk is no outage
TOO_MANY = Tokens(output=2**70)  # no database has a column for it


@pytest.fixture(autouse=True)
def _database(transactional_db: None) -> Iterator[None]:
    yield
    connections.close_all()


@pytest.fixture
def digest() -> str:
    return add_client()[0]


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Not started: what is submitted before becomes one batch."""
    made = Lane(RULES, patience=PATIENCE)
    yield made
    if made._thread.is_alive():
        assert made.stop(10)


def submit(lane: Lane, *items: LaneItem) -> list[Any]:
    """Submit all at once; results and exceptions in the same order."""

    async def submit_all() -> list[LaneResult | BaseException]:
        waiting = [asyncio.ensure_future(lane.submit(item)) for item in items]
        await asyncio.sleep(0)
        if lane._thread.ident is None:
            lane.start()
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)

    return asyncio.run(submit_all())


def admitted_requests(digest: str, count: int) -> list[tuple[Admit, Admitted]]:
    asked = [admit(digest) for _ in range(count)]
    return list(zip(asked, run(*asked), strict=True))


def settlements(digest: str, count: int) -> list[Settlement]:
    return [settlement(item, found) for item, found in admitted_requests(digest, count)]


# -- batches ---------------------------------------------------------------------------------------------------------
def test_what_waits_commits_together(lane: Lane, digest: str) -> None:
    add_keys("alpha", "beta")
    rows = settlements(digest, 5)
    new = [admit(digest) for _ in range(5)]
    results = submit(lane, *new, *rows)
    assert [type(result) for result in results] == [Admitted] * 5 + [type(None)] * 5
    assert set(RequestLog.objects.values_list("recorded_at", flat=True)) == set(
        InFlight.objects.values_list("started_at", flat=True)
    ), "one moment, one transaction"
    assert set(InFlight.objects.values_list("id", flat=True)) == {item.id for item in new}


def test_settlements_go_before_new_requests(lane: Lane, digest: str) -> None:
    """The key that a settlement's failure benches is not given to a request of the same batch."""
    add_keys("alpha", "beta")
    ((item, admitted),) = admitted_requests(digest, 1)
    failed = failed_try(admitted.selection, Cause.KEY_RATE_LIMITED)
    results = submit(lane, admit(digest), admit(digest), settlement(item, admitted, failures=(failed,), status=429))
    assert [found.selection.name for found in results[:2]] == ["beta", "beta"]


def test_more_than_a_batch_is_several_batches(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    results = submit(lane, *(admit(digest) for _ in range(MAX_BATCH + 10)))
    assert {type(result) for result in results} == {Admitted}
    assert InFlight.objects.values("started_at").distinct().count() == 2


def test_a_sender_that_was_cancelled_is_settled_all_the_same(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    (row,) = settlements(digest, 1)

    async def cancel() -> None:
        task = asyncio.ensure_future(lane.submit(row))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lane.start()
        await asyncio.to_thread(lane.stop)

    asyncio.run(cancel())
    assert RequestLog.objects.get().cost_nano == 1_000


def test_what_was_posted_is_committed_whatever_becomes_of_its_future(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    kept, cancelled, forgotten = settlements(digest, 3)

    async def post() -> LaneResult:
        committed, given_up = lane.post(kept).future, lane.post(cancelled)
        assert committed is not None and given_up.future is not None  # noqa: PT018
        given_up.future.cancel()
        lane.post(forgotten)
        lane.start()
        assert await asyncio.wait_for(given_up.follow(), 10) is None
        assert await asyncio.wait_for(given_up.follow(), 10) is None  # also when it has long been answered
        return await asyncio.wait_for(committed, 10)

    assert asyncio.run(post()) is None
    assert set(RequestLog.objects.values_list("id", flat=True)) == {kept.id, cancelled.id, forgotten.id}


def test_a_lane_that_has_ended_refuses_what_is_posted(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    (row,) = settlements(digest, 1)
    lane.start()
    lane.stop()

    async def post() -> None:
        with pytest.raises(LaneStopped):
            lane.post(row)

    asyncio.run(post())


def test_a_stopped_lane_writes_what_waits_and_takes_no_new_request(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    rows = settlements(digest, 3)

    async def stop() -> list[Any]:
        waiting = [asyncio.ensure_future(lane.submit(row)) for row in rows]
        await asyncio.sleep(0)
        lane.start()
        assert await asyncio.to_thread(lane.stop)
        with pytest.raises(LaneStopped):
            await lane.submit(admit(digest))
        return await asyncio.gather(*waiting)

    assert asyncio.run(stop()) == [None] * 3
    assert RequestLog.objects.count() == 3


# -- backpressure ----------------------------------------------------------------------------------------------------
def test_a_full_lane_refuses_new_requests_and_nothing_else(digest: str) -> None:
    add_keys("alpha", "beta")
    (settled, its), (moved, moving), (tried, _) = admitted_requests(digest, 3)
    lane = Lane(RULES, max_queue=2, patience=PATIENCE)
    begun: list[LaneItem] = [
        *(settlement(settled, its) for _ in range(5)),
        switch(moved, moving, Cause.CANNOT_AFFORD),
        PassTrial(tried.id),
    ]
    results = submit(lane, *(admit(digest) for _ in range(4)), *begun)
    lane.stop()
    assert [type(result) for result in results[:4]] == [Admitted, Admitted, LaneFull, LaneFull]
    assert not [result for result in results[4:] if isinstance(result, BaseException)]
    assert RequestLog.objects.count() == 1


# -- two processes ---------------------------------------------------------------------------------------------------
def two_lanes() -> tuple[Lane, Lane]:
    """As two web processes have them."""
    lanes = tuple(Lane(dataclasses.replace(RULES, worker=uuid.uuid4()), patience=PATIENCE) for _ in range(2))
    for lane in lanes:
        lane.start()
    return lanes  # type: ignore[return-value]


async def drive(lanes: tuple[Lane, Lane], digest: str, requests: int, at_once: int) -> list[tuple[Admit, Admitted]]:
    """`requests` admissions over both lanes, `at_once` at any time."""
    numbers = iter(range(requests))
    done: list[tuple[Admit, Admitted]] = []

    async def ask(lane: Lane) -> None:
        for _ in numbers:
            item = admit(digest)
            found = await lane.submit(item)
            assert isinstance(found, Admitted)
            done.append((item, found))

    await asyncio.gather(*(ask(lanes[n % 2]) for n in range(at_once)))
    return done


def test_three_hundred_requests_of_two_lanes_go_to_three_keys_alike(digest: str) -> None:
    add_keys("alpha", "beta", "gamma")
    lanes = two_lanes()
    done = asyncio.run(drive(lanes, digest, 300, at_once=16))
    assert [lane.stop() for lane in lanes] == [True, True]
    in_turn = [found.selection.name for _, found in sorted(done, key=lambda pair: pair[1].selection.turn)]
    assert in_turn == list(itertools.islice(itertools.cycle(["alpha", "beta", "gamma"]), 300))
    assert Counter(OpenRouterKey.objects.values_list("selections", flat=True)) == {100: 3}
    assert InFlight.objects.values("worker").distinct().count() == 2
    assert InFlight.objects.count() == 300


def test_two_lanes_give_a_trial_to_one_request(digest: str) -> None:
    alpha, _ = add_keys("alpha", "beta")
    now = timezone.now()
    Cooldown.objects.create(key=alpha, cause=Cause.KEY_RATE_LIMITED, started_at=now, until=now)
    lanes = two_lanes()
    done = asyncio.run(drive(lanes, digest, 60, at_once=16))
    assert [lane.stop() for lane in lanes] == [True, True]
    assert Counter(found.selection.name for _, found in done) == {"alpha": 1, "beta": 59}
    (trial,) = [item.id for item, found in done if found.selection.is_trial]
    assert Cooldown.objects.get().trial == trial


@pytest.mark.parametrize("is_orphan", [False, True], ids=["in flight", "not in flight"])
def test_two_lanes_settle_one_request_once(digest: str, is_orphan: bool) -> None:
    add_keys("alpha")
    rows = settlements(digest, 40)
    if is_orphan:
        InFlight.objects.all().delete()
    lanes = two_lanes()

    async def settle_twice() -> list[Any]:
        twice = [lane.submit(row) for row in rows for lane in lanes]
        return await asyncio.gather(*twice, return_exceptions=True)

    assert asyncio.run(settle_twice()) == [None] * 80
    assert [lane.stop() for lane in lanes] == [True, True]
    assert RequestLog.objects.count() == 40
    assert not RequestLog.objects.filter(flagged=True).exists()


def test_a_burst_over_two_lanes_is_one_bench(digest: str) -> None:
    add_keys("alpha")
    requests = admitted_requests(digest, 10)
    lanes = two_lanes()

    async def fail_all() -> None:
        switches = [switch(item, found, Cause.KEY_RATE_LIMITED) for item, found in requests]
        await asyncio.gather(*(lanes[n % 2].submit(each) for n, each in enumerate(switches)))

    asyncio.run(fail_all())
    assert [lane.stop() for lane in lanes] == [True, True]
    assert Cooldown.objects.count() == 1
    assert Attempt.objects.count() == 10


def test_operators_and_tasks_do_not_get_in_the_way_of_two_lanes(digest: str) -> None:
    """All of them lock in the same order: nothing deadlocks, and nothing is lost."""
    alpha, *_ = add_keys("alpha", "beta", "gamma", account=Account.objects.create(name="first"))
    lanes = two_lanes()
    trouble: list[BaseException] = []

    def operate() -> None:
        try:
            for _ in range(15):
                disable_key(alpha.pk, actor=ALICE)
                enable_key(alpha.pk, actor=ALICE)
                clear_cooldowns(alpha.pk, actor=ALICE)
                reset_cooldowns(timezone.now())
        except BaseException as exc:
            trouble.append(exc)
        finally:
            connections.close_all()

    async def serve(lane: Lane) -> None:
        for number in range(40):
            item = admit(digest)
            found = await lane.submit(item)
            if isinstance(found, NoKey):
                continue
            assert isinstance(found, Admitted)
            cause = (Cause.KEY_RATE_LIMITED, Cause.ACCOUNT_LIMITED, Cause.PROVIDER_BUSY)[number % 3]
            failed = failed_try(found.selection, cause, hint_seconds=1.0)
            await lane.submit(settlement(item, found, failures=(failed,), holds_trial=found.selection.is_trial))

    async def serve_all() -> None:
        await asyncio.gather(*(serve(lanes[n % 2]) for n in range(6)))

    operators = threading.Thread(target=operate)
    operators.start()
    asyncio.run(serve_all())
    operators.join(30)
    assert [lane.stop() for lane in lanes] == [True, True]
    assert trouble == []
    assert RequestLog.objects.count() == 240
    assert not InFlight.objects.exists()


def test_a_revocation_counts_from_the_next_admission_on() -> None:
    """Nothing is cached."""
    add_keys("alpha")
    digest, client = add_client()
    lanes = two_lanes()
    first = asyncio.run(drive(lanes, digest, 4, at_once=2))
    revoke_client(client.pk, actor=ALICE)

    async def ask_both() -> list[Any]:
        return [await lane.submit(admit(digest)) for lane in lanes]

    refused = asyncio.run(ask_both())
    for lane in lanes:
        lane.stop()
    assert len(first) == 4
    assert {getattr(answer, "reason", "") for answer in refused} == {"revoked"}


# -- rows that the database refuses ----------------------------------------------------------------------------------
@pytest.mark.parametrize("place", [0, 6, 12], ids=["first", "middle", "last"])
def test_a_poison_row_is_stored_emptied_and_flagged_and_the_others_as_they_are(
    lane: Lane, digest: str, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    add_keys("alpha")
    rows = settlements(digest, 13)
    rows[place] = msgspec.structs.replace(rows[place], tokens=TOO_MANY)
    assert submit(lane, *rows) == [None] * 13
    (flagged,) = RequestLog.objects.filter(flagged=True)
    assert flagged.id == rows[place].id
    assert (flagged.model_asked, flagged.user_agent, flagged.client_ip, flagged.output_tokens) == ("", "", "", 0)
    assert (flagged.cost_nano, flagged.cost_source, flagged.status) == (1_000, CostSource.REPORTED, 200)
    assert flagged.key_id == rows[place].key_id
    assert RequestLog.objects.filter(flagged=False, user_agent="curl/8").count() == 12
    assert not InFlight.objects.exists()
    events = Counter(getattr(record, "event", "") for record in caplog.records)
    assert (events["ledger.poison"], events["ledger.orphan"]) == (1, 0)


def test_several_poison_rows_of_one_batch(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    rows = settlements(digest, 8)
    for place in (0, 3, 4, 7):
        rows[place] = msgspec.structs.replace(rows[place], tokens=TOO_MANY)
    assert submit(lane, *rows) == [None] * 8
    assert Counter(RequestLog.objects.values_list("flagged", flat=True)) == {True: 4, False: 4}


def test_a_row_that_can_not_even_be_stored_empty_fails_alone(
    lane: Lane, digest: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_keys("alpha")
    rows = settlements(digest, 4)
    rows[2] = msgspec.structs.replace(rows[2], status=-1)
    with caplog.at_level(logging.CRITICAL, "opensvm.lane"):
        results = submit(lane, *rows, admit(digest))
    assert isinstance(results[2], IntegrityError)
    assert [results[index] for index in (0, 1, 3)] == [None] * 3
    assert isinstance(results[4], Admitted)
    assert RequestLog.objects.count() == 3


def test_the_lane_goes_on_after_a_poison_row(lane: Lane, digest: str) -> None:
    add_keys("alpha")
    poison, good = settlements(digest, 2)
    submit(lane, msgspec.structs.replace(poison, tokens=TOO_MANY))
    assert submit(lane, good, admit(digest))[0] is None
    assert not lane.is_away
