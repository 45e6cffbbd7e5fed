"""Streams through the data plane: what goes out, when, and what never does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from keys.lane_queue import Waiting
from keys.ledger_items import LaneItem, LaneResult, Settlement
from keys.models import Cooldown, CostSource, RequestLog
from proxy.outbox import PING
from proxy.retry import RetryPolicy
from tests.data_plane import DataPlane, Reply
from tests.integration.proxy import raw_streams
from tests.integration.proxy.raw_streams import CLOSING, COST_NANO, DONE, EVENTS, WHOLE, event, for_client, serve_raw

QUICK = RetryPolicy(max_retries=1, delay_seconds=0.01)


def without_pings(body: bytes) -> bytes:
    return body.replace(PING, b"")


def is_unfinished(body: bytes) -> bool:
    """Nothing that a client takes for the end of an answer."""
    return b"message_stop" not in body and b'"stop_reason": "' not in body and b'"stop_reason":"' not in body


def last_error(reply: Reply) -> dict[str, Any]:
    """Of a stream that ended with an `error` event, whose request id is the header's."""
    document = json.loads(reply.body.rpartition(b"\n\nevent: error\ndata: ")[2])
    assert (document["type"], document["request_id"]) == ("error", reply.headers["request-id"])
    error: dict[str, Any] = document["error"]
    return error


# -- Byte for byte ---------------------------------------------------------------------------------------------------
def test_a_stream_is_passed_on_byte_for_byte(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox)
    reply = plane.stream()
    assert reply.body == for_client(WHOLE)
    assert reply.headers["content-type"].startswith("text/event-stream")
    row = plane.only_row()
    assert (row.status, row.cost_nano, row.generation_id) == (200, COST_NANO, raw_streams.GENERATION)
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens) == (11, 27, 5)
    assert row.first_token_ms is not None


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_where_the_bytes_are_cut_makes_no_difference(plane: DataPlane, size: int, line_end: str) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, slice_bytes=size, line_end=line_end)
    reply = plane.stream()
    assert reply.body == for_client(WHOLE.replace(b"\n", line_end.encode()))
    assert plane.only_row().cost_nano == COST_NANO


DONES = {
    "as OpenRouter sends it": DONE,
    "unnamed": b"data: [DONE]\n\n",
    "none": b"",
    "twice": DONE * 2,
    "and a comment": DONE + b": bye\n\n",
}


@pytest.mark.parametrize("done", DONES.values(), ids=DONES)
def test_done_is_dropped(plane: DataPlane, done: bytes) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS) + done)
    assert plane.stream().body == for_client(b"".join(EVENTS))


def test_done_in_the_middle_is_dropped_too(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join([*EVENTS[:5], DONE, *EVENTS[5:]]))
    assert plane.stream().body == for_client(b"".join(EVENTS))


def test_a_text_that_says_done_is_kept(plane: DataPlane) -> None:
    plane.add_key("alpha")
    said = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "[DONE]"})
    serve_raw(plane.sandbox, b"".join([*EVENTS[:5], said, *EVENTS[5:]]))
    assert plane.stream().body == for_client(b"".join([*EVENTS[:5], said, *EVENTS[5:]]))


def test_what_follows_message_stop_is_not_passed_on(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS) + event("error", error={"type": "api_error", "message": "too late"}))
    assert plane.stream().body == for_client(b"".join(EVENTS))
    assert plane.only_row().status == 200


def test_a_gigantic_event_passes(plane: DataPlane) -> None:
    plane.add_key("alpha")
    large = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 5_000_000})
    raw = b"".join([*EVENTS[:5], large, *EVENTS[5:]])
    serve_raw(plane.sandbox, raw)
    assert plane.stream().body == for_client(raw)


# -- Pings -----------------------------------------------------------------------------------------------------------
@pytest.mark.plane(ping_seconds=0.1)
def test_a_ping_comes_every_15_s_of_silence_once_the_answer_has_begun(plane: DataPlane) -> None:
    """Here every 0.1 s."""
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS), cut_after_events=4, cut="stall")
    call = plane.open(stream=True)
    call.wait_for_bytes(EVENTS[3])
    begun = time.monotonic()
    call.wait_for_bytes(PING * 5)
    assert 0.4 < time.monotonic() - begun < 2.0
    call.leave()
    assert call.body.startswith(for_client(b"".join(EVENTS[:4])) + PING)


@pytest.mark.plane(ping_seconds=0.1)
def test_pings_change_nothing_else(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS[:2] + EVENTS[-3:]), delay_between=0.15)
    reply = plane.stream()
    assert reply.body.count(PING) >= 2
    assert without_pings(reply.body) == for_client(b"".join(EVENTS[:2] + EVENTS[-3:]))
    assert plane.only_row().status == 200


@pytest.mark.plane(ping_seconds=0.2)
def test_no_ping_while_events_flow(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, delay_between=0.015)
    assert plane.stream().body == for_client(WHOLE)


@pytest.mark.plane(ping_seconds=0.1)
def test_a_json_answer_gets_no_ping(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_headers=0.4)
    assert plane.post().json()["type"] == "message"


# -- Silence before the first event ----------------------------------------------------------------------------------
@pytest.mark.plane(first_event_seconds=0.2, ping_seconds=0.2)
@pytest.mark.parametrize(
    "silence",
    [{"delay_headers": 0.7}, {"delay_first_event": 0.7}, {"delay_first_event": 0.7, "comment_seconds": 0.05}],
    ids=["no headers", "no event", "only comments"],
)
def test_after_60_s_of_silence_200_and_a_ping_go_out(plane: DataPlane, silence: dict[str, float]) -> None:
    """Here after 0.2 s."""
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS), **silence)
    call = plane.open(stream=True)
    begun = time.monotonic()
    call.wait_for_bytes(PING)
    assert time.monotonic() - begun < 0.6  # before upstream has said anything
    reply = call.reply()
    assert reply.status == 200
    assert reply.body.startswith(PING)
    assert without_pings(reply.body).replace(raw_streams.COMMENT, b"") == for_client(b"".join(EVENTS))


FAILURES_AFTER_A_PING: dict[str, dict[str, Any]] = {
    "rate_limited": {"error": "rate_limited"},
    "refused": {"error": "refused"},
    "busy": {"error": "provider_busy"},
    "bad request": {"error": "bad_request"},
    "error_first_event": {"error": "error_first_event"},
    "closed": {"hang_up": "close"},
}


@pytest.mark.plane(first_event_seconds=0.1, retry=QUICK)
@pytest.mark.parametrize("failure", FAILURES_AFTER_A_PING.values(), ids=FAILURES_AFTER_A_PING)
def test_after_that_ping_failover_and_retry_end(plane: DataPlane, failure: dict[str, Any]) -> None:
    plane.add_keys("alpha", "beta")
    plane.sandbox.behave(delay_headers=0.3, **failure)
    reply = plane.stream()
    assert reply.status == 200
    assert reply.body.startswith(PING)
    last_error(reply)
    assert is_unfinished(reply.body)
    assert len(plane.asked_keys()) == 1
    row = plane.only_row()
    assert row.status == 200
    assert row.cause


@pytest.mark.plane(first_event_seconds=0.1)
def test_a_key_that_fails_after_the_ping_is_benched_all_the_same(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta")
    plane.sandbox.fail("rate_limited", key="alpha", delay_headers=0.3)
    plane.stream()
    plane.only_row()
    assert [cooldown.key.name for cooldown in plane.open_cooldowns() if cooldown.key] == ["alpha"]


# -- Errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.plane(retry=QUICK)
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_a_json_body_with_error_and_status_200_is_an_error(plane: DataPlane, stream: bool) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("error_in_200")
    reply = plane.post(stream=stream)
    assert reply.status == 502
    assert reply.error["type"] == "api_error"
    assert "user_" not in reply.body.decode()
    row = plane.only_row()
    assert (row.status, row.cost_nano, row.attempts) == (502, 0, 2)


@pytest.mark.plane(retry=QUICK)
@pytest.mark.parametrize("error", ["error_in_200", "error_first_event"])
def test_an_error_that_passes_is_not_seen_by_the_client(plane: DataPlane, error: str) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail(error, times=1)
    reply = plane.stream()
    assert reply.status == 200
    assert reply.events[-1][0] == "message_stop"
    assert plane.only_row().attempts == 2


LIMITED = event(
    "error", error={"type": "rate_limit_error", "message": "Rate limit exceeded", "error_type": "rate_limit_exceeded"}
)


@pytest.mark.parametrize(
    "before", [b"", raw_streams.COMMENT, event("ping")], ids=["first", "after a comment", "after a ping"]
)
def test_an_error_as_first_event_fails_over(plane: DataPlane, before: bytes) -> None:
    plane.add_keys("alpha", "beta")
    serve_raw(plane.sandbox, before + LIMITED, key="alpha")
    serve_raw(plane.sandbox, key="beta")
    reply = plane.stream()
    assert reply.body == for_client(WHOLE)
    assert plane.asked_keys() == ["alpha", "beta"]
    assert plane.only_row().cost_nano == COST_NANO
    assert Cooldown.objects.get().key.name == "alpha"  # type: ignore[union-attr]


@pytest.mark.parametrize("at", [1, 2, 5, CLOSING, CLOSING + 1])
def test_an_error_in_mid_stream_becomes_an_error_event(plane: DataPlane, at: int) -> None:
    plane.add_keys("alpha", "beta")
    broken = event("error", error={"type": "overloaded_error", "message": "Overloaded by user_2fVQx0kTqAbCdEfGh"})
    serve_raw(plane.sandbox, b"".join(EVENTS[:at]) + broken)
    reply = plane.stream()
    passed = b"".join(EVENTS[: min(at, CLOSING)])
    assert reply.body.startswith(for_client(passed) + b"event: error\n")
    assert is_unfinished(reply.body)
    assert last_error(reply)["type"] == "overloaded_error"
    assert b"user_2fV" not in reply.body
    assert len(plane.asked_keys()) == 1
    row = plane.only_row()
    assert (row.status, row.error_type) == (200, "overloaded_error")
    assert row.cost_source == (CostSource.REPORTED if at > CLOSING else CostSource.UNKNOWN)


def test_an_error_without_a_name_is_one_too(plane: DataPlane) -> None:
    """OpenAI's shape, as some of OpenRouter's own errors come."""
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS[:4]) + b'data: {"error":{"code":502,"message":"Provider gone"}}\n\n')
    reply = plane.stream()
    assert is_unfinished(reply.body)
    assert last_error(reply) == {"type": "api_error", "message": "Provider gone"}


def test_the_sandboxs_own_mid_stream_error(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("error_mid_stream", error_after_events=3)
    reply = plane.stream()
    assert is_unfinished(reply.body)
    last_error(reply)
    row = plane.only_row()
    assert row.generation_id == plane.sandbox.ledger()[0].id
    assert row.cost_source == CostSource.UNKNOWN


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_stream_cut_at_every_event_never_looks_finished(plane: DataPlane, how: str) -> None:
    """One request for each place to cut: before event 0, 1, …, and after the last."""
    plane.add_key("alpha")
    for cut in range(len(EVENTS) + 1):
        serve_raw(plane.sandbox, b"".join(EVENTS), cut_after_events=cut, cut=how, times=1)
    for cut in range(len(EVENTS) + 1):
        _check_cut(plane.stream(), cut, may_lose_the_last=how == "reset")
    plane.wait_until(lambda: RequestLog.objects.count() == len(EVENTS) + 1)
    for cut, row in enumerate(plane.rows()):
        assert row.attempts == 1, cut  # never sent again: it may have been billed
        if how == "close":
            assert row.cost_source == (CostSource.REPORTED if cut > CLOSING else CostSource.UNKNOWN), cut


def _check_cut(reply: Reply, cut: int, *, may_lose_the_last: bool) -> None:
    if reply.status != 200:  # no event had come
        assert may_lose_the_last or cut == 0, cut
        assert (reply.status, reply.error["type"], reply.headers["x-should-retry"]) == (504, "timeout_error", "false")
        return
    if cut == len(EVENTS) and reply.body == for_client(b"".join(EVENTS)):
        return  # all that matters had come
    assert may_lose_the_last or cut < len(EVENTS), cut
    passed, _, _ = reply.body.partition(b"event: error\n")
    whole = for_client(b"".join(EVENTS[: min(cut, CLOSING)]))
    assert whole.startswith(passed) if may_lose_the_last else passed == whole, cut
    assert is_unfinished(reply.body), cut
    assert last_error(reply)["type"] == "timeout_error", cut


@pytest.mark.parametrize("inside", [1, 10, -1], ids=["at its start", "in its name", "before its last byte"])
def test_a_half_event_is_not_passed_on(plane: DataPlane, inside: int) -> None:
    plane.add_key("alpha")
    whole, cut_one = b"".join(EVENTS[:5]), EVENTS[5]
    serve_raw(plane.sandbox, b"".join(EVENTS), cut_after_bytes=len(whole) + inside % len(cut_one))
    reply = plane.stream()
    assert reply.body.startswith(for_client(whole) + b"event: error\n")
    last_error(reply)


@pytest.mark.plane(silence_seconds=0.3, ping_seconds=0.1)
def test_an_upstream_that_falls_silent_ends_with_an_error_event(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS), cut_after_events=4, cut="stall")
    reply = plane.stream()
    assert is_unfinished(reply.body)
    assert last_error(reply)["type"] == "timeout_error"
    assert without_pings(reply.body).startswith(for_client(b"".join(EVENTS[:4])))
    plane.sandbox.wait_until(lambda s: s.requests()[0].left_at is not None)


@pytest.mark.plane(retry=QUICK)
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
def test_a_stream_answered_with_something_else_is_an_error(plane: DataPlane, content_type: str) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(body="<html>hello</html>", headers={"content-type": content_type})
    reply = plane.stream()
    assert reply.status == 502
    assert b"<html>" not in reply.body
    assert plane.only_row().cost_source == CostSource.UNKNOWN


@pytest.mark.plane(retry=QUICK)
def test_a_json_request_answered_with_a_stream_is_an_error(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox)
    reply = plane.post()
    assert reply.status == 502
    assert reply.error["type"] == "api_error"
    assert plane.only_row().status == 502


# -- Finishing bytes wait for the ledger -----------------------------------------------------------------------------
class HeldLane:
    """The lane, but settlements wait until `release`."""

    def __init__(self, plane: DataPlane) -> None:
        self._lane = plane.service.lane
        self.waiting = threading.Event()
        self._plane = plane
        self._released = asyncio.Event()
        self.is_away = False

    async def submit(self, item: LaneItem) -> LaneResult:
        return await self._lane.submit(item)

    def post(self, item: Settlement) -> Waiting:
        return Waiting(item, asyncio.ensure_future(self._hold(item)))

    async def _hold(self, item: Settlement) -> LaneResult:
        self.waiting.set()
        await self._released.wait()
        committed = self._lane.post(item).future
        assert committed is not None
        return await committed

    def release(self) -> None:
        self._plane.call_soon(self._released.set)

    def stop(self, timeout_seconds: float) -> bool:
        return self._lane.stop(timeout_seconds)


def _hold(plane: DataPlane) -> HeldLane:
    held = HeldLane(plane)
    plane.service.lane = held  # type: ignore[assignment]
    return held


def test_a_streams_finishing_bytes_go_out_only_after_the_commit(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox)
    lane = _hold(plane)
    call = plane.open(stream=True)
    assert lane.waiting.wait(5.0)
    call.wait_for_bytes(EVENTS[CLOSING - 1])  # everything before the end has gone out
    time.sleep(0.2)
    assert is_unfinished(call.body)
    assert not RequestLog.objects.exists()
    lane.release()
    assert call.reply().body == for_client(WHOLE)
    assert RequestLog.objects.count() == 1


def test_a_json_answer_goes_out_only_after_the_commit(plane: DataPlane) -> None:
    plane.add_key("alpha")
    lane = _hold(plane)
    call = plane.open()
    assert lane.waiting.wait(5.0)
    time.sleep(0.2)
    assert call.received == []
    lane.release()
    assert call.reply().status == 200
    assert RequestLog.objects.count() == 1


@pytest.mark.plane(ping_seconds=0.1)
def test_pings_go_out_while_the_ledger_waits(plane: DataPlane) -> None:
    plane.add_key("alpha")
    serve_raw(plane.sandbox, b"".join(EVENTS))
    lane = _hold(plane)
    call = plane.open(stream=True)
    call.wait_for_bytes(PING * 2)
    assert is_unfinished(call.body)
    lane.release()
    reply = call.reply()
    assert without_pings(reply.body) == for_client(b"".join(EVENTS))
    assert not reply.body.endswith(PING)


@contextmanager
def ledger_locked() -> Iterator[None]:
    """No row can be inserted meanwhile: by any transaction on SQLite, by a lock of the table on PostgreSQL."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE keys_requestlog IN EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "JSON"])
def test_nothing_finishes_while_the_database_does_not_commit(plane: DataPlane, stream: bool) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_headers=0.2)
    call = plane.open(stream=stream)
    plane.wait_until(lambda: len(plane.sandbox.requests()) == 1)  # admitted
    with ledger_locked():
        plane.sandbox.wait_until(lambda s: s.requests()[0].whole)
        time.sleep(0.3)
        assert is_unfinished(call.body)
        assert not call.is_over
    reply = call.reply()
    assert b"message_stop" in reply.body or reply.json()["type"] == "message"
    assert RequestLog.objects.count() == 1


# -- Connections to upstream -----------------------------------------------------------------------------------------
def test_connections_to_upstream_are_used_again(plane: DataPlane) -> None:
    """One after the other, half of them streams with a trailing [DONE]."""
    plane.add_key("alpha")
    for number in range(60):
        assert plane.post(stream=number % 2 == 0).status == 200
    connections = {request.connection for request in plane.sandbox.requests()}
    assert len(connections) <= 2


def test_a_late_done_does_not_hold_the_answer_back(plane: DataPlane) -> None:
    plane.add_key("alpha")
    raw = b"".join(EVENTS[:2] + EVENTS[-2:])
    serve_raw(plane.sandbox, raw, cut_after_bytes=len(raw), cut="stall")
    begun = time.monotonic()
    assert plane.stream().body == for_client(raw)
    assert time.monotonic() - begun < 0.8
    plane.sandbox.wait_until(lambda s: s.requests()[0].left_at is not None)  # and the tail is not waited for for ever


def test_an_error_answer_leaves_the_connection_usable(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("bad_request")
    for _ in range(10):
        assert plane.post().status == 400
    assert len({request.connection for request in plane.sandbox.requests()}) == 1


def test_the_usage_in_a_stream_is_what_upstream_billed(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(deltas=20, usage={"cost": 1.23e-05}, cost="1.23e-05")
    plane.stream()
    assert plane.only_row().cost_nano == 12_300
    assert plane.sandbox.billed_nano() == 12_300
