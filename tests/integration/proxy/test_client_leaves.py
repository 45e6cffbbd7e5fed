"""Clients that leave at every point: upstream is closed within a second, and a row is there."""

from __future__ import annotations

import asyncio
import time

import pytest

from keys.ledger_items import LaneItem, LaneResult, Settlement
from keys.models import CostSource, InFlight, RequestLog
from proxy.exchange import WATCH_AFTER_SECONDS
from proxy.retry import RetryPolicy
from tests.data_plane import DataPlane, NotedRetries, OpenCall
from tests.integration.proxy.raw_streams import CLOSING, COST_NANO, EVENTS, GENERATION, for_client, serve_raw

EVENTS_BYTES = b"".join(EVENTS)


def leave_and_check(plane: DataPlane, call: OpenCall) -> RequestLog:
    """Upstream sees the end within a second; the row says so."""
    begun = time.monotonic()
    call.leave()
    plane.sandbox.wait_until(lambda s: s.requests()[-1].left_at is not None, timeout_seconds=2.0)
    assert time.monotonic() - begun < 1.0
    row = plane.only_row()
    assert (row.status, row.cause, row.error_type) == (499, "client_left", "client_left")
    return row


# -- JSON ------------------------------------------------------------------------------------------------------------
def test_before_its_body_was_read(plane: DataPlane) -> None:
    plane.add_key("alpha")
    call = plane.open(send=False)
    call.send_body(b'{"model":', more=True)
    call.leave()
    plane.wait_until(lambda: call.task is not None and call.task.done())
    assert plane.sandbox.requests() == []
    assert not RequestLog.objects.exists()  # it never became a request
    assert plane.service.body_budget.used == 0


class SlowLane:
    """The lane, but an admission takes longer than an answer that needs no watch."""

    def __init__(self, plane: DataPlane) -> None:
        self._lane = plane.service.lane
        self.is_away = False

    async def submit(self, item: LaneItem) -> LaneResult:
        await asyncio.sleep(2 * WATCH_AFTER_SECONDS)
        return await self._lane.submit(item)

    def post(self, item: Settlement) -> asyncio.Future[LaneResult]:
        return self._lane.post(item)

    def stop(self, timeout_seconds: float) -> bool:
        return self._lane.stop(timeout_seconds)


def test_while_it_is_admitted(plane: DataPlane) -> None:
    """Nothing went up: there is no cost to ask for."""
    plane.add_key("alpha")
    plane.service.lane = SlowLane(plane)  # type: ignore[assignment]
    plane.open().leave()
    row = plane.only_row()
    assert (row.status, row.cause, row.attempts) == (499, "client_left", 0)
    assert (row.cost_nano, row.cost_source) == (0, CostSource.REPORTED)
    assert plane.sandbox.requests() == []
    assert not InFlight.objects.exists()


def test_before_the_head_of_a_json_answer(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_headers=5.0)
    call = plane.open()
    plane.wait_until(lambda: len(plane.sandbox.requests()) == 1)
    row = leave_and_check(plane, call)
    assert (row.cost_nano, row.cost_source) == (None, CostSource.UNKNOWN)


def test_during_the_body_of_a_json_answer(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(slice_bytes=100, cut_after_bytes=200, cut="stall")
    call = plane.open()
    plane.wait_until(lambda: len(plane.sandbox.requests()) == 1)
    time.sleep(0.1)  # the first 200 bytes come
    row = leave_and_check(plane, call)
    assert (row.cost_nano, row.cost_source) == (None, CostSource.UNKNOWN)
    assert row.generation_id == plane.sandbox.ledger()[0].id  # from upstream's header


def test_after_a_json_answer_was_complete(plane: DataPlane) -> None:
    plane.add_key("alpha")
    call = plane.open()
    call.reply()
    call.leave()
    row = plane.only_row()
    assert (row.status, row.cost_nano) == (200, plane.sandbox.billed_nano())


# -- Streams ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("silence", [{"delay_headers": 5.0}, {"delay_first_event": 5.0}], ids=["head", "first event"])
def test_before_a_streams_first_event(plane: DataPlane, silence: dict[str, float]) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(**silence)
    call = plane.open(stream=True)
    plane.wait_until(lambda: len(plane.sandbox.requests()) == 1)
    time.sleep(0.05)
    row = leave_and_check(plane, call)
    assert row.cost_source == CostSource.UNKNOWN
    assert row.first_token_ms is None


def test_at_every_event_of_a_stream(plane: DataPlane) -> None:
    """One request for each event that upstream has sent when the client leaves."""
    plane.add_key("alpha")
    for sent in range(1, len(EVENTS) + 1):
        serve_raw(plane.sandbox, EVENTS_BYTES, cut_after_events=sent, cut="stall", times=1)
    for sent in range(1, len(EVENTS)):
        call = plane.open(stream=True)
        call.wait_for_bytes(for_client(EVENTS[min(sent, CLOSING) - 1]))
        if sent > CLOSING:
            time.sleep(0.05)  # the last events are held: nothing shows that they have come
        call.leave()
        plane.sandbox.wait_until(lambda s: s.requests()[-1].left_at is not None, timeout_seconds=1.0)
        assert call.reply().body.startswith(for_client(b"".join(EVENTS[: min(sent, CLOSING)]))), sent
    _check_rows(plane)


def _check_rows(plane: DataPlane) -> None:
    plane.wait_until(lambda: RequestLog.objects.count() == len(EVENTS) - 1)
    for sent, row in enumerate(plane.rows(), start=1):
        assert (row.status, row.cause, row.generation_id) == (499, "client_left", GENERATION), sent
        expected = (COST_NANO, CostSource.REPORTED) if sent > CLOSING else (None, CostSource.UNKNOWN)
        assert (row.cost_nano, row.cost_source) == expected, sent
    assert not InFlight.objects.exists()


def test_right_after_the_last_event(plane: DataPlane) -> None:
    plane.add_key("alpha")
    for _ in range(20):
        call = plane.open(stream=True)
        call.wait_for_bytes(b"message_stop")
        call.leave()
    plane.wait_until(lambda: RequestLog.objects.count() == 20)
    assert {(row.status, row.cost_source) for row in plane.rows()} == {(200, CostSource.REPORTED)}
    assert sum(row.cost_nano or 0 for row in plane.rows()) == plane.sandbox.billed_nano()


LONG_PAUSES = NotedRetries(max_retries=3, delay_seconds=60)


@pytest.mark.plane(retry=LONG_PAUSES)
def test_while_it_waits_for_a_retry(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("provider_busy")
    call = plane.open(stream=True)
    assert LONG_PAUSES.paused.wait(5)
    call.leave()
    row = plane.only_row()  # the pause of a minute is not waited for
    assert (row.status, row.cause, row.cost_nano, row.attempts) == (499, "client_left", 0, 1)


@pytest.mark.plane(retry=RetryPolicy(max_retries=0, delay_seconds=0.0))
def test_failover_stops_when_the_client_leaves(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta", "gamma")
    plane.sandbox.fail("rate_limited", times=1)
    plane.sandbox.behave(delay_headers=5.0)
    call = plane.open()
    plane.wait_until(lambda: len(plane.sandbox.requests()) == 2)
    row = leave_and_check(plane, call)
    plane.sandbox.wait_until(lambda sandbox: sandbox.requests()[1].left_at is not None)
    assert len(plane.sandbox.requests()) == 2
    assert row.attempts == 2


def test_a_client_that_leaves_benches_nothing(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_headers=5.0)
    call = plane.open()
    plane.wait_until(lambda: len(plane.sandbox.requests()) == 1)
    leave_and_check(plane, call)
    assert plane.open_cooldowns() == []
    plane.sandbox.clear_rules()
    assert plane.post().status == 200


def test_leaving_together(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta")
    plane.sandbox.behave(deltas=200, delay_between=0.05)
    calls = [plane.open(stream=True) for _ in range(30)]
    for call in calls:
        call.wait_for_bytes(b"content_block_start")
    for call in calls:
        call.leave()
    plane.sandbox.wait_until(lambda s: all(request.left_at for request in s.requests()), timeout_seconds=2.0)
    plane.wait_until(lambda: RequestLog.objects.filter(status=499).count() == 30)
    assert not InFlight.objects.exists()
    assert len({row.generation_id for row in plane.rows()}) == 30
