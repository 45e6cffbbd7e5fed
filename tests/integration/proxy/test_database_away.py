"""A database that is away, hangs or refuses: new requests are told within a second, admitted ones finish, once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from django.db import connection, connections
from django.utils import timezone

from keys.models import CostSource, InFlight, RequestLog
from keys.services.recovery import recovery_steps
from tests.data_plane import Reply
from tests.fault_proxy import FaultProxy
from tests.integration.proxy import outages
from tests.integration.proxy.outages import JournaledPlane
from tests.sandbox import SandboxFixture

ON_SQLITE = {
    "locked": (outages.locked_by_another_program, "the database is locked by another process"),
    "stopped process": (outages.locked_by_our_own_lock_file, "the database does not answer"),
    "read-only": (outages.read_only, "the database is read-only"),
}
ON_POSTGRESQL = {
    "refuses": (outages.refuses, "the database can't be reached"),
    "half-open": (outages.half_open, "the database does not answer"),
    "slow commits": (outages.slow_commits, "the database does not answer"),
    "cut in a transaction": (outages.cuts_in_transactions, "the database can't be reached"),
    "cut before the commit": (outages.cuts_before_commits, "the database can't be reached"),
    "lost confirmations": (outages.loses_confirmations, "the database can't be reached"),
}
IS_SQLITE = connections.settings["default"]["ENGINE"] == "opensvm.sqlite"
OUTAGES = ON_SQLITE if IS_SQLITE else ON_POSTGRESQL
NEW_REQUEST_SECONDS = 1.0
AGAIN_SECONDS = 8.0

each_outage = pytest.mark.parametrize("name", OUTAGES, ids=str)


@pytest.fixture
def proxy() -> Iterator[FaultProxy | None]:
    with nullcontext() if IS_SQLITE else outages.behind_a_proxy() as proxy:
        yield proxy


@pytest.fixture
def plane(
    sandbox: SandboxFixture,
    transactional_db: None,
    proxy: FaultProxy | None,
    tmp_path: Path,
) -> Iterator[JournaledPlane]:
    plane = JournaledPlane(sandbox, {"settle_seconds": 1.0}, tmp_path / "journal")
    plane.start()
    plane.add_keys("alpha", "beta")
    assert plane.post().status == 200
    yield plane
    plane.stop()
    connections.close_all()


@each_outage
def test_new_requests_are_told_within_a_second(plane: JournaledPlane, proxy: FaultProxy, name: str) -> None:
    outage, words = OUTAGES[name]
    with outage(proxy):
        replies = [_timed_post(plane) for _ in range(4)]
        assert plane.readiness() == (503, {"ready": False, "reasons": [words]})
    for seconds, reply in replies:
        assert reply.status == 529
        assert reply.error["type"] == "overloaded_error"
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert seconds < NEW_REQUEST_SECONDS
    _works_again(plane)
    assert _finished() == 2  # the first of the fixture and the one just now; refused ones cost nothing
    assert sum(row.cost_nano or 0 for row in RequestLog.objects.all()) == plane.sandbox.billed_nano()


@each_outage
def test_an_admitted_stream_finishes_and_is_counted_once(plane: JournaledPlane, proxy: FaultProxy, name: str) -> None:
    plane.sandbox.behave(deltas=8, delay_between=0.03)
    call = plane.open(stream=True)
    call.wait_for_bytes(b"content_block_delta")
    with OUTAGES[name][0](proxy):
        reply = call.reply()
        assert [event for event, _ in reply.events][-1] == "message_stop"
        assert plane.journal.unsettled == 1
    _works_again(plane)
    plane.wait_until(lambda: plane.journal.unsettled == 0, AGAIN_SECONDS)
    row = RequestLog.objects.get(request_id=reply.headers["request-id"])
    assert (row.status, row.error_type, row.cost_source) == (200, "", CostSource.REPORTED)
    assert row.cost_nano == plane.sandbox.ledger()[1].cost_nano
    assert _finished() == 3


@each_outage
def test_a_whole_answer_is_given_out_only_when_it_is_durable(
    plane: JournaledPlane, proxy: FaultProxy, name: str
) -> None:
    """Neither the ledger nor the journal takes it: an error, and the row when the database is back."""
    plane.sandbox.behave(delay_headers=0.3)
    call = plane.open()
    plane.sandbox.wait_until(lambda seen: len(seen.requests()) == 2)
    plane.journal._max_bytes = 0  # full
    with OUTAGES[name][0](proxy):
        reply = call.reply()
        assert (reply.status, reply.error["type"]) == (529, "overloaded_error")
        assert b"This is the OpenSVM Sandbox" not in reply.body
    plane.journal._max_bytes = 1024 * 1024
    _works_again(plane)
    plane.wait_until(lambda: RequestLog.objects.filter(request_id=reply.headers["request-id"]).exists(), AGAIN_SECONDS)
    assert sum(row.cost_nano or 0 for row in RequestLog.objects.all()) == plane.sandbox.billed_nano()


@each_outage
def test_what_a_process_leaves_in_its_journal_the_next_one_settles(
    plane: JournaledPlane, proxy: FaultProxy, name: str
) -> None:
    plane.sandbox.behave(deltas=4, delay_between=0.05)
    call = plane.open(stream=True)
    call.wait_for_bytes(b"content_block_delta")
    with OUTAGES[name][0](proxy):
        reply = call.reply()
        started = time.monotonic()
        plane.run(plane.application.stop())
        assert time.monotonic() - started < 20
    connection.close()
    assert sum(recovery_steps(plane.folder, timezone.now)) <= 1  # none where the lane got through before it ended
    row = RequestLog.objects.get(request_id=reply.headers["request-id"])
    assert (row.status, row.cost_source) == (200, CostSource.REPORTED)
    assert list(plane.folder.iterdir()) == []
    assert not InFlight.objects.exists()


@pytest.mark.skipif(IS_SQLITE, reason="a commit in this process has an outcome")
def test_commits_whose_confirmation_is_lost_count_once(plane: JournaledPlane, proxy: FaultProxy) -> None:
    """The admission and the settlement are in the database, and the lane does not know it: both run again."""
    proxy.behave(on=b"COMMIT", then="cut_after", delay_seconds=0.05, times=1)
    assert plane.post().status == 200
    assert proxy.triggered == 1
    plane.sandbox.behave(delay_headers=0.3)
    call = plane.open()
    plane.sandbox.wait_until(lambda seen: len(seen.requests()) == 3)
    proxy.behave(on=b"COMMIT", then="cut_after", delay_seconds=0.05, times=1)
    assert call.reply().status == 200
    assert proxy.triggered == 1
    proxy.behave()
    plane.wait_until(lambda: not InFlight.objects.exists())
    assert _finished() == 3
    assert sum(row.cost_nano or 0 for row in RequestLog.objects.all()) == plane.sandbox.billed_nano()


@pytest.mark.skipif(IS_SQLITE, reason="SQLite has no connection to cut")
def test_one_byte_packets_and_latency_are_only_slow(plane: JournaledPlane, proxy: FaultProxy) -> None:
    proxy.behave(slice_bytes=1)
    assert plane.post().status == 200
    proxy.behave(latency_seconds=0.01)
    assert plane.stream().events[-1][0] == "message_stop"
    proxy.behave()
    assert _finished() == 3


def test_an_admission_that_is_committed_too_late_is_taken_back(plane: JournaledPlane, proxy: FaultProxy) -> None:
    """Its client has its 529 by then: a row that cost nothing, and nothing in flight."""
    outage = outages.locked_by_our_own_lock_file if IS_SQLITE else outages.slow_commits
    with outage(proxy):
        seconds, reply = _timed_post(plane)
        assert (reply.status, seconds < NEW_REQUEST_SECONDS) == (529, True)
    plane.wait_until(lambda: RequestLog.objects.count() == 2 and not InFlight.objects.exists(), AGAIN_SECONDS)
    row = RequestLog.objects.get(request_id=reply.headers["request-id"])
    assert (row.status, row.attempts, row.cost_nano, row.cause) == (529, 0, 0, "interrupted")
    assert len(plane.sandbox.requests()) == 1
    _works_again(plane)


def _timed_post(plane: JournaledPlane) -> tuple[float, Reply]:
    started = time.monotonic()
    reply = plane.post()
    return time.monotonic() - started, reply


def _works_again(plane: JournaledPlane) -> None:
    """Soon after the database is back, without a restart."""
    plane.wait_until(lambda: plane.post().status == 200, AGAIN_SECONDS)
    assert plane.readiness() == (200, {"ready": True})
    connection.close()
    plane.wait_until(lambda: not InFlight.objects.exists(), AGAIN_SECONDS)


def _finished() -> int:
    return RequestLog.objects.filter(error_type="").count()
