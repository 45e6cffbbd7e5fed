"""How benches begin, last and end, and what a client gets while no key is free."""

from __future__ import annotations

from typing import Any

import pytest

from keys.causes import Cause
from keys.models import Account, Attempt, Cooldown, InFlight, OpenRouterKey, RequestLog
from keys.services.cooldowns import clear_cooldowns
from keys.services.keys import disable_key
from proxy.retry import RetryPolicy
from tests.data_plane import ALICE, DataPlane

pytestmark = pytest.mark.plane(retry=RetryPolicy(max_retries=0, delay_seconds=0.0))

FREE = "meta-llama/llama-3.3-70b-instruct:free"


def repeats_and_seconds() -> list[tuple[int, float]]:
    rows = Cooldown.objects.order_by("id")
    return [(row.repeat, (row.until - row.started_at).total_seconds()) for row in rows]


# -- a burst ---------------------------------------------------------------------------------------------------------
def test_a_burst_of_ten_429s_is_one_bench(plane: DataPlane) -> None:
    """All ten were selected before the bench began, so nine of them say nothing new."""
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", delay_headers=0.3)
    calls = [plane.open() for _ in range(10)]
    replies = [call.reply() for call in calls]
    assert plane.asked_keys() == ["alpha"] * 10
    assert {reply.status for reply in replies} == {429}
    assert repeats_and_seconds() == [(0, 300)]
    assert Attempt.objects.count() == 10


def test_a_burst_with_a_short_hint_is_no_exhausted_quota(plane: DataPlane) -> None:
    """Elsewhere: hours of 503 after one burst."""
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", times=1, retry_after=2)
    assert plane.post().headers["retry-after"] == "2"
    plane.clock.forward(2)
    assert plane.post().status == 200


def test_a_late_failure_of_a_burst_does_not_bench_a_key_that_has_come_back(plane: DataPlane) -> None:
    alpha = plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", delay_headers=0.15, times=1)
    plane.sandbox.fail("rate_limited", delay_headers=0.4, times=1)
    first, late = plane.open(), plane.open()
    assert first.reply().status == 429
    assert len(plane.asked_keys()) == 2
    clear_cooldowns(alpha.pk, actor=ALICE)
    assert late.reply().status in (429, 529)
    assert not plane.open_cooldowns()
    assert plane.post().status == 200


# -- repeats ---------------------------------------------------------------------------------------------------------
def test_failed_trials_bench_for_300_600_900_900_seconds(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited")
    for seconds in (300, 600, 900, 900):
        assert plane.post().status == 429
        plane.clock.forward(seconds + 1)
    assert repeats_and_seconds() == [(0, 300), (1, 600), (2, 900), (3, 900)]
    assert len(plane.asked_keys()) == 4
    assert set(Cooldown.objects.filter(cleared_at__isnull=False).values_list("cleared_by", flat=True)) == {
        "failed trial"
    }


def test_success_resets_the_count(plane: DataPlane) -> None:
    """Elsewhere failures count for life."""
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", times=2)
    plane.post()
    plane.clock.forward(301)
    plane.post()
    plane.clock.forward(601)
    assert plane.post().status == 200
    plane.sandbox.fail("rate_limited", times=1)
    plane.post()
    assert repeats_and_seconds() == [(0, 300), (1, 600), (0, 300)]


def test_a_hint_is_never_doubled(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", retry_after=20)
    for _ in range(3):
        plane.post()
        plane.clock.forward(21)
    assert repeats_and_seconds() == [(0, 20), (1, 20), (2, 20)]


def test_a_single_error_disables_nothing_for_good(plane: DataPlane) -> None:
    plane.add_key("alpha")
    for error, seconds in [("rate_limited", 300), ("out_of_credit", 300), ("key_limit", 3600), ("refused", 60)]:
        plane.sandbox.fail(error, times=1)
        assert plane.post().status in (429, 529)
        plane.clock.forward(seconds + 1)
        assert plane.post().status == 200, error


# -- accounts --------------------------------------------------------------------------------------------------------
def test_an_account_cooldown_benches_all_keys_of_the_account(plane: DataPlane) -> None:
    account = Account.objects.create(name="first")
    plane.add_keys("alpha", "beta", "gamma", account=account)
    plane.add_key("delta", tier=2)
    plane.sandbox.fail("out_of_credit", times=1)
    assert [plane.post().status for _ in range(3)] == [200] * 3
    assert plane.asked_keys() == ["alpha", "delta", "delta", "delta"]


def test_an_account_cooldown_of_a_key_without_an_account_stands_alone(plane: DataPlane) -> None:
    alpha, _ = plane.add_keys("alpha", "beta")
    plane.sandbox.fail("out_of_credit", key="alpha", times=1)
    assert plane.post().status == 200
    (cooldown,) = plane.open_cooldowns()
    assert (cooldown.key_id, cooldown.account_id) == (alpha.pk, None)
    assert plane.post().status == 200
    assert plane.asked_keys() == ["alpha", "beta", "beta"]


def test_a_rate_limit_of_one_key_leaves_the_others_of_its_account_alone(plane: DataPlane) -> None:
    account = Account.objects.create(name="first")
    plane.add_keys("alpha", "beta", account=account)
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    assert [plane.post().status for _ in range(2)] == [200, 200]
    assert plane.asked_keys() == ["alpha", "beta", "beta"]


# -- free models -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", ["free_daily", "rate_limited"], ids=["the account's day", "the key"])
def test_a_limit_of_free_models_benches_only_them(plane: DataPlane, error: str) -> None:
    plane.add_key("alpha", account=Account.objects.create(name="first"))
    plane.sandbox.fail(error, times=1)
    assert plane.post(model=FREE).status in (429, 529)
    (cooldown,) = plane.open_cooldowns()
    assert cooldown.pattern == ":free"
    assert plane.post().status == 200, "paid models go on with the same key"
    assert plane.post(model=FREE).status in (429, 529)
    assert plane.asked_keys() == ["alpha", "alpha"], "the last one never went up"


def test_a_bench_for_all_models_is_for_free_ones_too(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", times=1)
    plane.post()
    assert plane.post(model=FREE).status == 429
    assert plane.asked_keys() == ["alpha"]


def test_what_free_models_wait_for_is_not_told_to_others(plane: DataPlane) -> None:
    """The key is benched for 5 s for every model, and for an hour for free ones."""
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", model="*:free", times=1, retry_after=3000)
    plane.sandbox.fail("admission_control", times=1, retry_after=5)
    assert plane.post(model=FREE).status == 429
    assert plane.post().headers["retry-after"] == "5"
    reply = plane.post()
    assert (reply.status, reply.headers["retry-after"]) == (529, "5")


# -- no key left -----------------------------------------------------------------------------------------------------
NO_KEY_LEFT: list[tuple[str, list[dict[str, Any]], int, str, int]] = [
    ("all rate-limited", [{"error": "rate_limited"}] * 2, 429, "rate_limit_error", 60),
    ("one only rate-limited", [{"error": "refused"}, {"error": "rate_limited"}], 429, "rate_limit_error", 60),
    ("refused last", [{"error": "rate_limited"}, {"error": "refused"}], 429, "rate_limit_error", 60),
    ("none rate-limited", [{"error": "out_of_credit"}, {"error": "key_limit"}], 529, "overloaded_error", 60),
    ("earliest key", [{"error": "rate_limited", "retry_after": 40}, {"error": "rate_limited", "retry_after": 7}],
     429, "rate_limit_error", 7),
    ("less than a second", [{"error": "rate_limited", "retry_after": 0.1}] * 2, 429, "rate_limit_error", 1),
    ("an hour", [{"error": "rate_limited", "retry_after": 3600}] * 2, 429, "rate_limit_error", 60),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scripts", "status", "error_type", "retry_after"),
    [row[1:] for row in NO_KEY_LEFT],
    ids=[row[0] for row in NO_KEY_LEFT],
)
def test_no_key_left(
    plane: DataPlane, scripts: list[dict[str, Any]], status: int, error_type: str, retry_after: int
) -> None:
    """At the end of a failover, and for the next request, which finds none at all."""
    plane.add_keys("alpha", "beta")
    for name, script in zip(("alpha", "beta"), scripts, strict=True):
        plane.sandbox.behave(key=name, **script)
    for reply in (plane.post(), plane.post()):
        assert (reply.status, reply.error["type"]) == (status, error_type)
        assert reply.error["message"].startswith("All keys exhausted")
        assert int(reply.headers["retry-after"]) == pytest.approx(retry_after, abs=1 if retry_after < 60 else 0)
        assert "x-should-retry" not in reply.headers
    assert plane.asked_keys() == ["alpha", "beta"]
    plane.wait_until(lambda: RequestLog.objects.count() == 2 and not InFlight.objects.exists())
    failed_over, without_key = plane.rows()
    assert (failed_over.status, failed_over.error_type, failed_over.attempts) == (status, error_type, 2)
    assert (without_key.status, without_key.error_type) == (status, error_type)
    assert (without_key.key_id, without_key.attempts, without_key.cost_nano) == (None, 0, 0)
    assert without_key.cause == Cause.NO_KEY


def test_the_log_says_how_many_keys_for_which_cause_and_the_client_is_not_told(
    plane: DataPlane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.add_keys("alpha", "beta", "gamma")
    plane.sandbox.fail("rate_limited", key="alpha")
    plane.sandbox.fail("rate_limited", key="beta")
    plane.sandbox.fail("refused", key="gamma")
    plane.post()
    caplog.clear()
    reply = plane.post()
    (line,) = [record for record in caplog.records if getattr(record, "event", "") == "pool.exhausted"]
    assert line.getMessage() == "All keys exhausted: 3 active, 2 x key_rate_limited, 1 x key_refused"
    assert line.benched == {"key_refused": 1, "key_rate_limited": 2}  # type: ignore[attr-defined]
    told = reply.body.decode() + str(reply.headers)
    assert not [word for word in ("refused", "limited", "alpha", "3 active", "...") if word in told]


def test_a_pool_without_a_key_says_so(plane: DataPlane, caplog: pytest.LogCaptureFixture) -> None:
    reply = plane.post()
    assert (reply.status, reply.error["type"], reply.headers["retry-after"]) == (529, "overloaded_error", "60")
    assert "At least one OpenRouter API key is required" in reply.error["message"]
    assert "At least one OpenRouter API key is required" in caplog.messages
    row = plane.only_row()
    assert (row.status, row.key_id, row.attempts) == (529, None, 0)


def test_the_last_key_disabled_in_the_middle_of_a_request(plane: DataPlane) -> None:
    alpha = plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", delay_headers=0.2)
    call = plane.open()
    plane.wait_until(lambda: len(plane.asked_keys()) == 1)
    disable_key(alpha.pk, actor=ALICE)
    reply = call.reply()
    assert reply.status == 529
    assert plane.only_row().status == 529


# -- the end of a bench ----------------------------------------------------------------------------------------------
def test_a_benched_key_comes_back_without_celery(plane: DataPlane) -> None:
    """Nothing but requests runs in this test."""
    plane.add_keys("alpha", "beta")
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    assert [plane.post().status for _ in range(3)] == [200] * 3
    plane.clock.forward(299)
    assert plane.post().status == 200
    assert plane.asked_keys() == ["alpha", "beta", "beta", "beta", "beta"]
    plane.clock.forward(1)
    assert [plane.post().status for _ in range(4)] == [200] * 4
    assert plane.asked_keys()[5:] == ["alpha", "beta", "alpha", "beta"], "it rotates again"
    assert not plane.open_cooldowns()


def test_an_operator_ends_a_bench_at_once(plane: DataPlane) -> None:
    alpha = plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", times=1)
    plane.post()
    assert clear_cooldowns(alpha.pk, actor=ALICE) == 1
    assert plane.post().status == 200
    assert OpenRouterKey.objects.get().selections == 2


def test_a_key_with_two_benches_waits_for_the_longer_one(plane: DataPlane) -> None:
    plane.add_key("alpha", account=Account.objects.create(name="first"))
    plane.sandbox.fail("rate_limited", delay_headers=0.2, times=1)
    plane.sandbox.fail("admission_control", delay_headers=0.2, times=1)
    calls = [plane.open(), plane.open()]
    assert {call.reply().status for call in calls} <= {429, 529}
    assert len(plane.open_cooldowns()) == 2
    plane.clock.forward(11)
    assert plane.post().status in (429, 529)
    plane.clock.forward(290)
    assert plane.post().status == 200
    assert not plane.open_cooldowns(), "one good answer ends both"
