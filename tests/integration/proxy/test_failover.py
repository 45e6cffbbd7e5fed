"""Whose fault a failed try is, from the upstream's answer to the client's, the ledger and the next request.

Each row of the README's table "Whose fault is it" has a test named after it.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import time
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from keys.causes import Cause
from keys.models import Account, Attempt, Cooldown, CostSource, KeyState, OpenRouterKey
from keys.services.audit import TASK
from keys.services.checks import check_key
from keys.services.maintenance import reset_cooldowns
from proxy.retry import RetryPolicy
from tests.data_plane import DataPlane, NotedRetries, Reply

pytestmark = pytest.mark.plane(retry=RetryPolicy(max_retries=3, delay_seconds=0.005))

NOWHERE = "http://127.0.0.1:9/api/v1"


def two_accounts(plane: DataPlane) -> None:
    """alpha and beta belong to one account, gamma to another; they are asked in this order."""
    first, second = Account.objects.create(name="first"), Account.objects.create(name="second")
    plane.add_keys("alpha", "beta", account=first)
    plane.add_key("gamma", account=second)


def attempts() -> list[tuple[int, str, int | None, str]]:
    """(n, key, upstream's status, cause) of the failed tries."""
    rows = Attempt.objects.order_by("request", "n").select_related("key")
    return [(row.n, row.key.name, row.status, row.cause) for row in rows]


def bench(plane: DataPlane) -> tuple[str, str, str, float]:
    """(target, cause, pattern, seconds) of the one open cooldown."""
    (cooldown,) = plane.open_cooldowns()
    target = cooldown.key or cooldown.account
    assert target is not None
    return target.name, cooldown.cause, cooldown.pattern, (cooldown.until - cooldown.started_at).total_seconds()


def assert_failed_over(plane: DataPlane, reply: Reply, to: str, cause: Cause, status: int) -> None:
    """The client got its answer from `to`, in the same request; alpha's failure is in the ledger."""
    assert reply.status == 200, reply.body
    assert plane.asked_keys() == ["alpha", to]
    row = plane.only_row()
    assert row.key is not None
    assert (row.status, row.error_type, row.cause, row.attempts, row.key.name) == (200, "", "", 2, to)
    assert attempts() == [(1, "alpha", status, cause)]
    assert row.cost_nano == plane.sandbox.billed_nano()


def assert_not_benched(plane: DataPlane) -> None:
    assert not Cooldown.objects.exists()
    assert set(OpenRouterKey.objects.values_list("state", flat=True)) == {KeyState.ACTIVE}


def assert_anthropic_error(reply: Reply, status: int, error_type: str) -> None:
    assert (reply.status, reply.error["type"]) == (status, error_type), reply.body
    assert reply.json()["request_id"] == reply.headers["request-id"]


# -- The rows of the table -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        ({}, 300),
        ({"retry_after": 5}, 5),
        ({"retry_after": 120, "hint_in": "metadata"}, 120),
        ({"retry_after": 40, "hint_in": "metadata_headers"}, 40),
        ({"retry_after": 0.2}, 1),
        ({"retry_after": 90_000}, 3600),
    ],
    ids=["no hint", "header", "metadata", "headers in the metadata", "too short", "too long"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_key_rate_limited(plane: DataPlane, script: dict[str, Any], seconds: float, stream: bool) -> None:
    plane.clock.stop()
    two_accounts(plane)
    plane.sandbox.fail("rate_limited", key="alpha", **script)
    reply = plane.post(stream=stream)
    assert_failed_over(plane, reply, "beta", Cause.KEY_RATE_LIMITED, 429)
    assert bench(plane) == ("alpha", Cause.KEY_RATE_LIMITED, "", seconds)
    assert [plane.post().status for _ in range(4)] == [200] * 4
    assert plane.asked_keys()[2:] == ["gamma", "beta", "gamma", "beta"], "not selected again"
    assert OpenRouterKey.objects.get(name="alpha").state == KeyState.ACTIVE


BARE_ADMISSION_CONTROL = {
    "status": 429,
    "body": json.dumps(
        {"error": {"code": 429, "message": "x", "metadata": {"limit_source": "openrouter_admission_control"}}}
    ),
}


@pytest.mark.parametrize(
    ("script", "status", "seconds"),
    [
        ({"error": "admission_control"}, 429, 10),
        ({"error": "in_flight_budget"}, 402, 120),
        (BARE_ADMISSION_CONTROL, 429, 60),
    ],
    ids=["admission control", "in-flight budget", "no hint"],
)
def test_account_limit_admission_control_in_flight_budget(
    plane: DataPlane, script: dict[str, Any], status: int, seconds: float
) -> None:
    two_accounts(plane)
    plane.sandbox.behave(key="alpha", **script)
    assert_failed_over(plane, plane.post(), "gamma", Cause.ACCOUNT_LIMITED, status)
    assert bench(plane) == ("first", Cause.ACCOUNT_LIMITED, "", seconds)
    assert plane.post().status == 200
    assert plane.asked_keys()[2:] == ["gamma"], "beta is benched with its account"


@pytest.mark.parametrize("error", ["out_of_credit", "out_of_credit_b"])
def test_account_out_of_credit(plane: DataPlane, error: str) -> None:
    two_accounts(plane)
    plane.sandbox.fail(error, key="alpha")
    assert_failed_over(plane, plane.post(), "gamma", Cause.OUT_OF_CREDIT, 402)
    assert bench(plane) == ("first", Cause.OUT_OF_CREDIT, "", 300)
    assert plane.post().status == 200
    assert plane.asked_keys()[2:] == ["gamma"]


def test_account_out_of_credit_doubles_to_an_hour(plane: DataPlane) -> None:
    plane.add_key("alpha", account=Account.objects.create(name="first"))
    plane.sandbox.fail("out_of_credit")
    seconds = []
    for _ in range(6):
        assert_anthropic_error(plane.post(), 529, "overloaded_error")
        seconds.append(bench(plane)[-1])
        plane.clock.forward(seconds[-1] + 1)
    assert seconds == [300, 600, 1200, 2400, 3600, 3600]


@pytest.mark.parametrize(
    ("error", "status"),
    [("key_limit", 403), ("guardrail_budget", 403), ("workspace_budget", 403)],
)
def test_key_limit_reached(plane: DataPlane, error: str, status: int) -> None:
    two_accounts(plane)
    plane.sandbox.fail(error, key="alpha")
    assert_failed_over(plane, plane.post(), "beta", Cause.KEY_LIMIT_REACHED, status)
    assert bench(plane) == ("alpha", Cause.KEY_LIMIT_REACHED, "", 3600)


def test_key_limit_reached_until_it_resets(plane: DataPlane) -> None:
    two_accounts(plane)
    plane.sandbox.fail("key_limit_daily", key="alpha")
    plane.post()
    midnight = (timezone.now() + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    (cooldown,) = plane.open_cooldowns()
    assert abs((cooldown.until - midnight).total_seconds()) < 1
    plane.clock.forward(86_401)
    plane.sandbox.clear_rules()
    assert [plane.post().status for _ in range(3)] == [200] * 3
    assert sorted(plane.asked_keys()[2:]) == ["alpha", "beta", "gamma"]


def test_key_limit_reached_ends_when_a_check_sees_room(plane: DataPlane, settings: Settings) -> None:
    settings.OPENROUTER_BASE_URL = plane.sandbox.base_url
    alpha = plane.add_key("alpha")
    plane.sandbox.fail("key_limit", key="alpha", times=1)
    assert_anthropic_error(plane.post(), 529, "overloaded_error")
    check_key(alpha.pk, actor=TASK)
    assert not plane.open_cooldowns()
    assert plane.post().status == 200


@pytest.mark.parametrize("error", ["cannot_afford", "key_limit_402"], ids=["the account", "the key"])
def test_can_only_afford_n_tokens(plane: DataPlane, error: str) -> None:
    two_accounts(plane)
    plane.sandbox.fail(error, key="alpha")
    assert_failed_over(plane, plane.post(max_tokens=9000), "beta", Cause.CANNOT_AFFORD, 402)
    assert_not_benched(plane)


def test_can_only_afford_n_tokens_with_no_key_left(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta")
    plane.sandbox.fail("cannot_afford")
    reply = plane.post(max_tokens=9000)
    assert_anthropic_error(reply, 529, "overloaded_error")
    assert "max_tokens" in reply.error["message"]
    assert "credits" not in reply.error["message"], "upstream's own words are the operator's business"
    assert plane.asked_keys() == ["alpha", "beta"]
    assert_not_benched(plane)


def test_key_refused(plane: DataPlane) -> None:
    two_accounts(plane)
    plane.sandbox.fail("refused", key="alpha")
    assert_failed_over(plane, plane.post(), "beta", Cause.KEY_REFUSED, 401)
    assert bench(plane) == ("alpha", Cause.KEY_REFUSED, "", 60)
    assert OpenRouterKey.objects.get(name="alpha").state == KeyState.ACTIVE, "one refusal proves nothing yet"


@pytest.mark.parametrize("error", ["refused", "disabled", "expired", "no_credentials"])
def test_an_upstream_401_is_never_relayed(plane: DataPlane, error: str) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail(error)
    reply = plane.post()
    assert_anthropic_error(reply, 529, "overloaded_error")
    assert reply.error["message"].startswith("All keys exhausted")
    row = plane.only_row()
    assert (row.status, row.cause, row.attempts, row.cost_nano) == (529, Cause.KEY_REFUSED, 1, 0)


def test_key_refused_there_too_becomes_invalid_and_comes_back_by_itself(plane: DataPlane, settings: Settings) -> None:
    settings.OPENROUTER_BASE_URL = plane.sandbox.base_url
    alpha = plane.add_key("alpha")
    plane.sandbox.change_key("alpha", disabled=True)
    plane.post()
    reset_cooldowns(timezone.now())
    alpha.refresh_from_db()
    assert alpha.state == KeyState.INVALID
    plane.sandbox.change_key("alpha", disabled=False)
    check_key(alpha.pk, actor=TASK)
    alpha.refresh_from_db()
    assert alpha.state == KeyState.ACTIVE
    assert plane.post().status == 200


def test_key_refused_but_an_unreachable_check_changes_no_state(plane: DataPlane, settings: Settings) -> None:
    settings.OPENROUTER_BASE_URL = NOWHERE
    alpha = plane.add_key("alpha")
    plane.sandbox.fail("refused", path="/messages", times=1)
    plane.post()
    reset_cooldowns(timezone.now())
    alpha.refresh_from_db()
    assert alpha.state == KeyState.ACTIVE
    assert alpha.check_error
    plane.clock.forward(61)
    assert plane.post().status == 200, "its trial brings it back"


BUSY = [
    ("provider_busy", 429, "rate_limit_error"),
    ("capacity", 429, "rate_limit_error"),
    ("server_error", 500, "api_error"),
    ("bad_gateway", 502, "api_error"),
    ("html_502", 502, "api_error"),
    ("unavailable", 503, "overloaded_error"),
    ("overloaded", 529, "overloaded_error"),
]


@pytest.mark.parametrize(("error", "status", "error_type"), BUSY, ids=[row[0] for row in BUSY])
def test_provider_or_model_busy(plane: DataPlane, error: str, status: int, error_type: str) -> None:
    """Retried, then the error as it is. A fixed bench on 503 turns 6 % of errors into 28 %."""
    two_accounts(plane)
    plane.sandbox.fail(error, retry_after=0)
    assert_anthropic_error(plane.post(), status, error_type)
    assert plane.asked_keys() == ["alpha"] * 4, "1 + OPENROUTER_MAX_RETRIES"
    row = plane.only_row()
    assert (row.status, row.error_type, row.cause, row.attempts) == (status, error_type, Cause.PROVIDER_BUSY, 4)
    assert row.cost_nano == 0
    assert attempts() == [(n, "alpha", status, Cause.PROVIDER_BUSY) for n in (1, 2, 3, 4)]
    assert_not_benched(plane)


def test_provider_busy_and_then_not_is_an_answer(plane: DataPlane) -> None:
    two_accounts(plane)
    plane.sandbox.fail("unavailable", times=2)
    assert plane.stream().events[-1][0] == "message_stop"
    row = plane.only_row()
    assert (row.status, row.attempts, len(attempts())) == (200, 3, 2)
    assert row.cost_nano == plane.sandbox.billed_nano()


@pytest.mark.plane(retry=RetryPolicy(max_retries=2, delay_seconds=0.1))
def test_provider_busy_is_retried_with_growing_pauses(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("unavailable")
    plane.post()
    at = [request.at for request in plane.sandbox.requests()]
    first, second = ((b - a).total_seconds() for a, b in itertools.pairwise(at))
    assert first >= 0.1
    assert second >= 0.2


@pytest.mark.plane(retry=RetryPolicy(max_retries=0, delay_seconds=60))
def test_trying_another_key_is_no_retry_and_does_not_wait(plane: DataPlane) -> None:
    plane.add_keys(*(f"key{n}" for n in range(6)))
    plane.sandbox.fail("rate_limited", times=5)
    started = time.monotonic()
    assert plane.post().status == 200
    assert time.monotonic() - started < 5
    assert plane.asked_keys() == [f"key{n}" for n in range(6)]


BAD_REQUESTS = [
    ("bad_request", 400, "invalid_request_error"),
    ("context_length", 400, "invalid_request_error"),
    ("bad_model", 400, "invalid_request_error"),
    ("no_endpoints", 404, "not_found_error"),
    ("too_large", 413, "request_too_large"),
    ("unprocessable", 400, "invalid_request_error"),
    ("moderation", 403, "permission_error"),
    ("guardrail_filter", 403, "permission_error"),
    ("region_restricted", 403, "permission_error"),
]


@pytest.mark.parametrize(("error", "status", "error_type"), BAD_REQUESTS, ids=[row[0] for row in BAD_REQUESTS])
def test_bad_request(plane: DataPlane, error: str, status: int, error_type: str) -> None:
    """Passed on, Anthropic-shaped, asked once: a client's own mistake benches no good key."""
    two_accounts(plane)
    plane.sandbox.fail(error)
    assert_anthropic_error(plane.post(), status, error_type)
    assert plane.asked_keys() == ["alpha"]
    row = plane.only_row()
    assert (row.status, row.error_type, row.cause, row.attempts) == (status, error_type, Cause.BAD_REQUEST, 1)
    assert row.cost_nano == 0
    assert_not_benched(plane)


def test_bad_request_404_logs_which_alias_to_look_at(plane: DataPlane, caplog: pytest.LogCaptureFixture) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("no_endpoints")
    with caplog.at_level(logging.INFO, "opensvm"):
        plane.post(model="claude-3-sonnet-20240229")
        plane.only_row()
        plane.wait_until(lambda: any("aliases" in str(vars(record)) for record in caplog.records))
    lines = [vars(record) for record in caplog.records]
    (line,) = [line for line in lines if line.get("event") == "request.settled"]
    assert "anthropic/claude-3.5-sonnet, see the model aliases" in line["detail"]


def test_connect_error(plane: DataPlane) -> None:
    two_accounts(plane)
    plane.sandbox.refuse_connections()
    reply = plane.post()
    plane.sandbox.accept_connections()
    assert_anthropic_error(reply, 502, "api_error")
    row = plane.only_row()
    assert (row.cause, row.attempts, row.cost_nano) == (Cause.NOT_SENT, 4, 0)
    assert attempts() == [(n, "alpha", None, Cause.NOT_SENT) for n in (1, 2, 3, 4)]
    assert plane.asked_keys() == []
    assert_not_benched(plane)


SHORT_PAUSES = NotedRetries(max_retries=8, delay_seconds=0.02)


@pytest.mark.plane(retry=SHORT_PAUSES)
def test_connect_error_is_retried_until_upstream_is_there(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.refuse_connections()
    call = plane.open(stream=True)
    assert SHORT_PAUSES.paused.wait(5)
    plane.sandbox.accept_connections()
    assert call.reply().events[-1][0] == "message_stop"
    assert plane.only_row().attempts > 1


TIMEOUTS: list[tuple[dict[str, Any], int | None]] = [
    ({"error": "timeout"}, 408),
    ({"error": "gateway_timeout"}, 504),
    ({"error": "html_524"}, 524),
    ({"hang_up": "stall"}, None),
    ({"hang_up": "close"}, None),
    ({"hang_up": "reset"}, None),
    ({"cut_after_bytes": 40}, None),
    ({"cut_after_bytes": 40, "cut": "stall"}, None),
]


@pytest.mark.plane(silence_seconds=0.3, retry=RetryPolicy(max_retries=3, delay_seconds=0.005))
@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
@pytest.mark.parametrize(("script", "status"), TIMEOUTS, ids=[" ".join(map(str, row[0].values())) for row in TIMEOUTS])
def test_408_504_524_own_timeout_or_cut_after_the_request_was_sent(
    plane: DataPlane, script: dict[str, Any], status: int | None, stream: bool
) -> None:
    """Not sent again: it may have been billed."""
    two_accounts(plane)
    plane.sandbox.behave(**script)
    reply = plane.post(stream=stream)
    assert_anthropic_error(reply, 504, "timeout_error")
    assert reply.headers["x-should-retry"] == "false"
    assert plane.asked_keys() == ["alpha"]
    row = plane.only_row()
    assert (row.status, row.error_type, row.cause, row.attempts) == (504, "timeout_error", Cause.TIMED_OUT, 1)
    assert (row.cost_nano, row.cost_source) == (None, CostSource.UNKNOWN)
    assert attempts() == [(1, "alpha", status, Cause.TIMED_OUT)]
    assert_not_benched(plane)


@pytest.mark.plane(silence_seconds=0.3)
@pytest.mark.parametrize("cut", ["close", "reset", "stall"])
def test_a_cut_after_the_stream_has_begun_is_an_error_event(plane: DataPlane, cut: str) -> None:
    two_accounts(plane)
    plane.sandbox.behave(cut_after_events=4, cut=cut, deltas=20)
    events = plane.stream().events
    assert events[0][0] == "message_start"
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["type"] == "timeout_error"
    assert "message_stop" not in dict(events)
    assert plane.asked_keys() == ["alpha"]
    row = plane.only_row()
    assert (row.status, row.error_type, row.cause, row.attempts) == (200, "timeout_error", Cause.TIMED_OUT, 1)
    assert_not_benched(plane)


# -- What follows below the table ------------------------------------------------------------------------------------
def test_each_key_is_asked_once(plane: DataPlane) -> None:
    """Other gateways retry with the key that has just failed."""
    plane.add_keys("alpha", "beta", "gamma")
    plane.sandbox.fail("rate_limited", key="alpha")
    plane.sandbox.fail("refused", key="beta")
    plane.sandbox.fail("cannot_afford", key="gamma")
    plane.post()
    assert plane.asked_keys() == ["alpha", "beta", "gamma"]
    assert [row[:2] for row in attempts()] == [(1, "alpha"), (2, "beta"), (3, "gamma")]
    assert plane.only_row().attempts == 3


def test_at_most_ten_keys_are_asked(plane: DataPlane) -> None:
    plane.add_keys(*(f"key{n}" for n in range(12)))
    plane.sandbox.fail("rate_limited")
    reply = plane.post()
    assert plane.asked_keys() == [f"key{n}" for n in range(10)]
    assert_anthropic_error(reply, 429, "rate_limit_error")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert reply.error["message"].startswith("All keys exhausted")
    assert plane.only_row().attempts == 10
    plane.sandbox.clear_rules()
    assert plane.post().status == 200, "the other two are free"


def test_failover_stops_when_the_client_leaves(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta", "gamma")
    plane.sandbox.fail("rate_limited", delay_headers=5.0)
    call = plane.open()
    plane.wait_until(lambda: len(plane.asked_keys()) == 1)
    call.leave()
    row = plane.only_row()
    assert (row.status, row.cause, row.attempts) == (499, Cause.CLIENT_LEFT, 1)
    plane.sandbox.wait_until(lambda sandbox: sandbox.requests()[0].left_at is not None)
    assert plane.asked_keys() == ["alpha"]
    assert not plane.open_cooldowns()


LONG_PAUSES = NotedRetries(max_retries=3, delay_seconds=60)


@pytest.mark.plane(retry=LONG_PAUSES)
def test_retries_stop_when_the_client_leaves(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("unavailable")
    call = plane.open()
    assert LONG_PAUSES.paused.wait(5)
    call.leave()
    row = plane.only_row()
    assert (row.cause, row.attempts, row.cost_nano) == (Cause.CLIENT_LEFT, 1, 0)
    assert attempts() == [(1, "alpha", 503, Cause.PROVIDER_BUSY)]


def test_a_429_page_of_an_edge_proxy_does_not_empty_the_pool(plane: DataPlane) -> None:
    """It is for our address, not for a key."""
    two_accounts(plane)
    page = "<html><head><title>429 Too Many Requests</title></head><body>Slow down</body></html>"
    plane.sandbox.behave(status=429, body=page, headers={"content-type": "text/html", "retry-after": "0"})
    assert_anthropic_error(plane.post(), 429, "rate_limit_error")
    assert_not_benched(plane)
    plane.sandbox.clear_rules()
    assert plane.post().status == 200


def test_a_wrong_path_reaches_neither_upstream_nor_the_pool(plane: DataPlane) -> None:
    plane.add_key("alpha")
    assert_anthropic_error(plane.post(path="/v1/completions"), 404, "not_found_error")
    assert plane.asked_keys() == []
    assert_not_benched(plane)


@pytest.mark.plane(retry=RetryPolicy(max_retries=3, delay_seconds=0.005))
def test_every_kind_of_failure_in_one_request(plane: DataPlane) -> None:
    """A limited key, then a busy provider, then a refused key, then an answer: one row, four attempts."""
    plane.add_keys("alpha", "beta", "gamma")
    plane.sandbox.fail("rate_limited", key="alpha", retry_after=9)
    plane.sandbox.fail("unavailable", key="beta", times=1)
    plane.sandbox.fail("refused", key="beta")
    assert plane.post().status == 200
    assert plane.asked_keys() == ["alpha", "beta", "beta", "gamma"]
    assert [row[2] for row in attempts()] == [429, 503, 401]
    assert plane.only_row().attempts == 4
    benched = {cooldown.key.name: cooldown.cause for cooldown in plane.open_cooldowns() if cooldown.key}
    assert benched == {"alpha": Cause.KEY_RATE_LIMITED, "beta": Cause.KEY_REFUSED}


def test_the_log_names_the_key_by_its_tail_and_says_what_is_next(
    plane: DataPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """The guide's greps: "key ending", "rate limit", "trying next key"."""
    alpha, _ = plane.add_keys("alpha", "beta")
    plane.sandbox.fail("rate_limited", key="alpha")
    with caplog.at_level(logging.INFO, "opensvm"):
        plane.post()
        plane.wait_until(lambda: any("answered with key" in message for message in caplog.messages))
    assert f"rate limit on key ending {alpha.tail}, trying next key" in caplog.messages
    assert "sk-or-v1" not in caplog.text
