"""How long a cause benches: the column "bench" of the table "Whose fault is it"."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from keys.causes import SCOPES, BenchPolicy, Cause, Failure, Scope

NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
BENCHING = sorted(SCOPES)
HARMLESS = sorted(set(Cause) - set(SCOPES))


def failure(cause: Cause, **fields: Any) -> Failure:
    return Failure(cause, 529, "overloaded_error", "It failed.", **fields)


def seconds(cause: Cause, *, repeat: int = 0, policy: BenchPolicy | None = None, **fields: Any) -> float:
    return (policy or BenchPolicy()).bench_seconds(failure(cause, **fields), repeat, NOW)


@pytest.mark.parametrize(
    ("cause", "by_repeat"),
    [
        (Cause.KEY_RATE_LIMITED, [300, 600, 900, 900, 900]),
        (Cause.ACCOUNT_LIMITED, [60, 60, 60]),
        (Cause.OUT_OF_CREDIT, [300, 600, 1200, 2400, 3600, 3600]),
        (Cause.KEY_LIMIT_REACHED, [3600, 3600, 3600]),
        (Cause.KEY_REFUSED, [60, 60, 60]),
    ],
)
def test_a_bench_without_a_hint(cause: Cause, by_repeat: list[int]) -> None:
    assert [seconds(cause, repeat=repeat) for repeat in range(len(by_repeat))] == by_repeat


def test_a_bench_stays_finite_after_a_thousand_failed_trials() -> None:
    assert [seconds(cause, repeat=1_000) for cause in BENCHING] == [
        {Cause.KEY_RATE_LIMITED: 900, Cause.ACCOUNT_LIMITED: 60, Cause.KEY_REFUSED: 60}.get(cause, 3600)
        for cause in BENCHING
    ]


@pytest.mark.parametrize("repeat", [0, 1, 5])
@pytest.mark.parametrize(
    ("hint", "taken"), [(17.0, 17.0), (0.2, 1.0), (0.0, 1.0), (-3.0, 1.0), (3600.0, 3600.0), (86_400.0, 3600.0)]
)
@pytest.mark.parametrize("cause", [Cause.KEY_RATE_LIMITED, Cause.ACCOUNT_LIMITED])
def test_a_hint_is_taken_as_given_and_never_doubled(cause: Cause, hint: float, taken: float, repeat: int) -> None:
    assert seconds(cause, repeat=repeat, hint_seconds=hint) == taken


@pytest.mark.parametrize(
    ("after", "benched"),
    [
        (dt.timedelta(hours=9), 32_400.0),
        (dt.timedelta(days=28), 28 * 86_400.0),
        (dt.timedelta(seconds=-5), 1.0),
        (dt.timedelta(), 1.0),
    ],
)
def test_a_reached_limit_is_benched_until_it_resets(after: dt.timedelta, benched: float) -> None:
    assert seconds(Cause.KEY_LIMIT_REACHED, resets_at=NOW + after) == benched


def test_no_word_of_upstream_lengthens_the_bench_of_a_refused_key() -> None:
    assert seconds(Cause.KEY_REFUSED, hint_seconds=3000.0) == 60


@pytest.mark.parametrize("cause", HARMLESS)
def test_what_is_not_a_keys_fault_benches_nothing(cause: Cause) -> None:
    assert failure(cause).scope is Scope.NOTHING
    with pytest.raises(ValueError, match="benches nothing"):
        seconds(cause)


def test_every_default_is_a_setting() -> None:
    policy = BenchPolicy(1.0, 2.0, 3.0, 4.0, 5.0)
    found = {cause: seconds(cause, policy=policy) for cause in BENCHING}
    assert found == {
        Cause.KEY_RATE_LIMITED: 1.0,
        Cause.ACCOUNT_LIMITED: 2.0,
        Cause.OUT_OF_CREDIT: 3.0,
        Cause.KEY_LIMIT_REACHED: 4.0,
        Cause.KEY_REFUSED: 5.0,
    }


def test_only_a_key_or_its_account_is_ever_benched() -> None:
    assert {cause: scope for cause, scope in SCOPES.items() if scope is Scope.ACCOUNT} == {
        Cause.ACCOUNT_LIMITED: Scope.ACCOUNT,
        Cause.OUT_OF_CREDIT: Scope.ACCOUNT,
    }
    assert {cause for cause, scope in SCOPES.items() if scope is Scope.KEY} == {
        Cause.KEY_RATE_LIMITED,
        Cause.KEY_LIMIT_REACHED,
        Cause.KEY_REFUSED,
    }
