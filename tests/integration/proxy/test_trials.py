"""The trial: when a bench is over, one request finds out whether its cause is gone, while all others go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from django.utils import timezone

from keys.causes import Cause
from keys.models import Account, Cooldown, InFlight
from keys.services.maintenance import reset_cooldowns
from proxy.retry import RetryPolicy
from tests.data_plane import DataPlane, OpenCall

pytestmark = pytest.mark.plane(retry=RetryPolicy(max_retries=1, delay_seconds=0.005))


def bench_alpha(plane: DataPlane) -> None:
    """alpha is rate-limited and its bench just over; beta, of a later tier, is asked when alpha is not free."""
    plane.add_key("alpha")
    plane.add_key("beta", tier=2)
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    assert plane.post().status == 200
    plane.sandbox.clear_rules()
    plane.clock.forward(300)


def open_trial(plane: DataPlane, *, stream: bool = False) -> OpenCall:
    """A request whose trial of alpha is under way: the sandbox has it and says nothing."""
    before = calls_of(plane, "alpha")
    call = plane.open(stream=stream)
    plane.wait_until(lambda: calls_of(plane, "alpha") == before + 1)
    return call


def calls_of(plane: DataPlane, name: str) -> int:
    return Counter(plane.asked_keys())[name]


def who_answers(plane: DataPlane, requests: int = 3) -> list[str]:
    """The keys that the next requests go to."""
    before = len(plane.asked_keys())
    for _ in range(requests):
        assert plane.post().status == 200
    return plane.asked_keys()[before:]


def the_cooldown() -> Cooldown:
    return Cooldown.objects.order_by("-id")[0]


def wait_until_free(plane: DataPlane) -> None:
    plane.wait_until(lambda: the_cooldown().trial is None)


# -- to one request --------------------------------------------------------------------------------------------------
def test_the_trial_goes_to_exactly_one_request_while_others_go_on(plane: DataPlane) -> None:
    """Elsewhere a herd hits the key that is still bad."""
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", delay_headers=0.5)
    before = len(plane.asked_keys())
    calls = [plane.open() for _ in range(12)]
    plane.wait_until(lambda: len(plane.asked_keys()) == before + 12)
    assert Counter(plane.asked_keys()[before:]) == {"alpha": 1, "beta": 11}
    assert {call.reply().status for call in calls} == {200}
    plane.sandbox.clear_rules()
    assert who_answers(plane) == ["alpha"] * 3


def test_the_trial_of_an_account_goes_to_one_request_for_all_its_keys(plane: DataPlane) -> None:
    account = Account.objects.create(name="first")
    plane.add_keys("alpha", "gamma", account=account)
    plane.add_key("beta", tier=2)
    plane.sandbox.fail("admission_control", key="alpha", times=1)
    assert plane.post().status == 200
    plane.clock.forward(10)
    plane.sandbox.clear_rules()
    plane.sandbox.behave(delay_headers=0.4)
    before = len(plane.asked_keys())
    calls = [plane.open() for _ in range(8)]
    plane.wait_until(lambda: len(plane.asked_keys()) == before + 8)
    assert Counter(plane.asked_keys()[before:]) == {"gamma": 1, "beta": 7}
    assert {call.reply().status for call in calls} == {200}
    plane.sandbox.clear_rules()
    assert sorted(who_answers(plane, 2)) == ["alpha", "gamma"]


def test_nothing_is_tried_before_the_bench_is_over(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.clock.forward(-1)
    assert who_answers(plane) == ["beta"] * 3
    assert the_cooldown().trial is None


# -- passed ----------------------------------------------------------------------------------------------------------
def test_the_first_good_event_ends_the_bench_and_not_the_end_of_the_stream(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", streamed=True, cut_after_events=3, cut="stall")
    trial = open_trial(plane, stream=True)
    trial.wait_for_bytes(b"message_start")
    plane.wait_until(lambda: not plane.open_cooldowns())
    assert not trial.is_over
    assert who_answers(plane) == ["alpha"] * 3
    assert (the_cooldown().cleared_by, the_cooldown().trial) == ("trial", None)
    trial.leave()


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_a_good_answer_ends_the_bench(plane: DataPlane, stream: bool) -> None:
    bench_alpha(plane)
    assert plane.post(stream=stream).status == 200
    plane.wait_until(lambda: not plane.open_cooldowns())
    assert who_answers(plane) == ["alpha"] * 3
    assert Cooldown.objects.count() == 1


def test_a_stream_that_breaks_after_its_first_event_has_passed(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", streamed=True, cut_after_events=3)
    assert plane.stream().events[-1][0] == "error"
    plane.wait_until(lambda: not plane.open_cooldowns())
    assert the_cooldown().cleared_by == "trial"


# -- failed ----------------------------------------------------------------------------------------------------------
def test_the_keys_own_fault_opens_a_longer_bench(plane: DataPlane) -> None:
    """Elsewhere a second failure does not extend it."""
    bench_alpha(plane)
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    assert who_answers(plane, 1) == ["alpha", "beta"]
    first, second = Cooldown.objects.order_by("id")
    assert (first.cleared_by, second.repeat) == ("failed trial", 1)
    assert (second.until - second.started_at).total_seconds() == 600
    plane.clock.forward(599)
    assert who_answers(plane) == ["beta"] * 3
    plane.clock.forward(1)
    assert who_answers(plane) == ["alpha"] * 3


def test_another_fault_of_the_key_opens_its_own_bench(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.fail("refused", key="alpha", times=1)
    assert who_answers(plane, 1) == ["alpha", "beta"]
    found = {cooldown.cause: cooldown.trial for cooldown in plane.open_cooldowns()}
    assert found == {Cause.KEY_RATE_LIMITED: None, Cause.KEY_REFUSED: None}
    plane.clock.forward(61)
    assert who_answers(plane) == ["alpha"] * 3
    assert not plane.open_cooldowns()


# -- freed -----------------------------------------------------------------------------------------------------------
def test_a_client_that_leaves_frees_the_trial(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", hang_up="stall", times=1)
    trial = open_trial(plane)
    assert who_answers(plane, 1) == ["beta"]
    trial.leave()
    wait_until_free(plane)
    assert who_answers(plane) == ["alpha"] * 3


@pytest.mark.parametrize("error", ["unavailable", "bad_request", "timeout"])
def test_an_answer_that_says_nothing_of_the_key_frees_the_trial(plane: DataPlane, error: str) -> None:
    bench_alpha(plane)
    plane.sandbox.fail(error, key="alpha", times=2)
    assert plane.post().status >= 400
    wait_until_free(plane)
    assert the_cooldown().cleared_at is None, "the cause may still be there"
    plane.sandbox.clear_rules()
    assert who_answers(plane) == ["alpha"] * 3
    assert not plane.open_cooldowns()


def test_a_busy_provider_that_answers_in_the_end_passes_the_trial(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.fail("unavailable", key="alpha", times=1)
    assert plane.post().status == 200
    plane.wait_until(lambda: not plane.open_cooldowns())
    assert the_cooldown().cleared_by == "trial"


def test_a_request_that_is_gone_frees_the_trial(plane: DataPlane) -> None:
    """Its process was killed, and its row settled by another."""
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", hang_up="stall", times=1)
    trial = open_trial(plane)
    InFlight.objects.all().delete()
    assert who_answers(plane) == ["alpha"] * 3
    trial.leave()


def test_sixty_seconds_without_an_event_free_the_trial(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", hang_up="stall", times=1)
    trial = open_trial(plane)
    plane.clock.forward(58)
    assert who_answers(plane) == ["beta"] * 3
    plane.clock.forward(3)
    assert who_answers(plane) == ["alpha"] * 3
    trial.leave()


def late_trial(plane: DataPlane, script: Callable[[], None]) -> OpenCall:
    """A trial that answers as `script` says after another has taken its place."""
    bench_alpha(plane)
    script()
    return open_trial(plane)


def test_a_stale_trial_that_fails_late_is_no_repeat(plane: DataPlane) -> None:
    stale = late_trial(plane, lambda: plane.sandbox.fail("rate_limited", key="alpha", times=1, delay_headers=0.4))
    plane.clock.forward(61)
    assert who_answers(plane, 1) == ["alpha"], "the trial that took its place has passed"
    assert stale.reply().status == 200, "beta answers"
    assert the_cooldown().repeat == 0, "what it says is news, but not of a trial"


def test_a_stale_trial_that_fails_after_the_next_one_changes_nothing(plane: DataPlane) -> None:
    stale = late_trial(plane, lambda: plane.sandbox.fail("rate_limited", key="alpha", times=1, delay_headers=0.4))
    plane.clock.forward(61)
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    assert who_answers(plane, 1) == ["alpha", "beta"]
    known = the_cooldown()
    assert stale.reply().status == 200
    assert (the_cooldown().pk, the_cooldown().until) == (known.pk, known.until)
    assert Cooldown.objects.count() == 2


def test_a_stale_trial_that_was_freed_and_fails_late_changes_nothing(plane: DataPlane) -> None:
    stale = late_trial(plane, lambda: plane.sandbox.fail("rate_limited", key="alpha", times=1, delay_headers=0.3))
    plane.clock.forward(61)
    assert reset_cooldowns(plane.clock()) == 1
    known = the_cooldown()
    assert stale.reply().status == 200
    assert [(row.pk, row.until, row.trial) for row in plane.open_cooldowns()] == [(known.pk, known.until, None)]
    assert who_answers(plane, 1) == ["alpha"]


def test_a_stale_trial_that_succeeds_late_does_not_end_the_bench_of_the_next(plane: DataPlane) -> None:
    stale = late_trial(plane, lambda: plane.sandbox.behave(key="alpha", times=1, delay_headers=0.4))
    plane.clock.forward(61)
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    assert who_answers(plane, 1) == ["alpha", "beta"]
    assert stale.reply().status == 200
    (cooldown,) = plane.open_cooldowns()
    assert cooldown.repeat == 1
    assert who_answers(plane) == ["beta"] * 3


def test_celery_frees_a_stale_trial_but_never_ends_a_rate_limit(plane: DataPlane) -> None:
    bench_alpha(plane)
    plane.sandbox.behave(key="alpha", hang_up="stall", times=1)
    trial = open_trial(plane)
    assert reset_cooldowns(timezone.now()) == 0
    InFlight.objects.all().delete()
    assert reset_cooldowns(timezone.now()) == 1
    (cooldown,) = plane.open_cooldowns()
    assert (cooldown.cause, cooldown.trial) == (Cause.KEY_RATE_LIMITED, None)
    trial.leave()
