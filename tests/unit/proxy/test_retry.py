"""What follows a failed try."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.causes import Cause, Failure
from proxy.retry import RetryPolicy, Step

POLICY = RetryPolicy(max_retries=3, delay_seconds=1.0)
OTHER_KEY = [
    Cause.KEY_RATE_LIMITED,
    Cause.ACCOUNT_LIMITED,
    Cause.OUT_OF_CREDIT,
    Cause.KEY_LIMIT_REACHED,
    Cause.CANNOT_AFFORD,
    Cause.KEY_REFUSED,
]
SAME_AGAIN = [Cause.PROVIDER_BUSY, Cause.NOT_SENT]
NEVER_AGAIN = [cause for cause in Cause if cause not in OTHER_KEY and cause not in SAME_AGAIN]


def failure(cause: Cause, **fields: Any) -> Failure:
    return Failure(cause, 502, "api_error", "It failed.", **fields)


def next_step(cause: Cause, *, has_begun: bool = False, retries: int = 0, keys_tried: int = 1) -> Step:
    return POLICY.next_step(failure(cause), has_begun=has_begun, retries=retries, keys_tried=keys_tried)


def pause(retries: int, *, jitter: float = 0.0, hint: float | None = None, delay_seconds: float = 1.0) -> float:
    failed = failure(Cause.PROVIDER_BUSY, retry_after_seconds=hint)
    return RetryPolicy(3, delay_seconds).pause_seconds(failed, retries=retries, jitter=lambda: jitter)


@pytest.mark.parametrize("cause", OTHER_KEY)
def test_a_fault_of_the_key_or_its_account_asks_another_key(cause: Cause) -> None:
    assert next_step(cause) is Step.SWITCH
    assert next_step(cause, retries=3) is Step.SWITCH, "trying another key is not a retry"


@pytest.mark.parametrize("cause", OTHER_KEY)
def test_at_most_ten_keys_are_asked(cause: Cause) -> None:
    assert next_step(cause, keys_tried=9) is Step.SWITCH
    assert next_step(cause, keys_tried=10) is Step.ENOUGH_KEYS


@pytest.mark.parametrize("cause", SAME_AGAIN)
def test_a_fault_of_the_provider_is_retried_as_often_as_set(cause: Cause) -> None:
    assert [next_step(cause, retries=n) for n in range(5)] == [Step.RETRY] * 3 + [Step.GIVE_UP] * 2


@pytest.mark.parametrize("cause", NEVER_AGAIN)
def test_what_may_have_been_billed_or_is_the_requests_fault_is_never_sent_again(cause: Cause) -> None:
    assert next_step(cause) is Step.GIVE_UP


@pytest.mark.parametrize("cause", list(Cause))
def test_nothing_is_tried_once_the_answer_has_begun(cause: Cause) -> None:
    assert next_step(cause, has_begun=True) is Step.GIVE_UP


def test_no_retries_means_one_call() -> None:
    policy = RetryPolicy(max_retries=0, delay_seconds=1.0)
    assert policy.next_step(failure(Cause.PROVIDER_BUSY), has_begun=False, retries=0, keys_tried=1) is Step.GIVE_UP


def test_pauses_double_up_to_half_a_minute() -> None:
    assert [pause(n) for n in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_adds_up_to_a_quarter() -> None:
    assert [pause(1, jitter=jitter) for jitter in (0.0, 0.5, 1.0)] == [2.0, 2.25, 2.5]


@pytest.mark.parametrize(("hint", "waited"), [(None, 1.0), (0.1, 1.0), (7.0, 7.0), (10.0, 10.0), (600.0, 10.0)])
def test_a_providers_hint_counts_if_it_is_longer_but_not_for_ever(hint: float | None, waited: float) -> None:
    assert pause(0, hint=hint) == waited


@given(retries=st.integers(0, 100), jitter=st.floats(0, 1), delay=st.floats(0, 600), hint=st.floats(0, 1e9) | st.none())
def test_no_pause_is_longer_than_a_client_waits(retries: int, jitter: float, delay: float, hint: float | None) -> None:
    assert 0 <= pause(retries, jitter=jitter, delay_seconds=delay, hint=hint) <= 30 * 1.25


def test_every_cause_has_a_next_step() -> None:
    for cause, begun, retries, keys in itertools.product(Cause, (False, True), (0, 9), (1, 99)):
        assert next_step(cause, has_begun=begun, retries=retries, keys_tried=keys) in Step
