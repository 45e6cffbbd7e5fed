"""What keeps the pool true in the background."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.utils import timezone

from keys.causes import Cause
from keys.models import Cooldown, InFlight, KeyState, OpenRouterKey
from keys.sealing import Sealed
from keys.services import maintenance
from keys.services.audit import COMMAND_LINE
from keys.services.keys import add_key, retire_key
from keys.services.maintenance import CheckSchedule, check_keys, reset_cooldowns

pytestmark = pytest.mark.django_db

SECOND = dt.timedelta(seconds=1)
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
SCHEDULE = CheckSchedule(active=5 * MINUTE, invalid=5 * MINUTE, invalid_later=HOUR)


class Upstream(httpx.BaseTransport):
    """`GET /key`, and who asked: the tails of the keys, in order."""

    def __init__(self, answer: Callable[[], httpx.Response]) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/key")
        self.asked.append(request.headers["authorization"][-4:])
        return self._answer()


def accepts(**facts: Any) -> Upstream:
    return Upstream(lambda: httpx.Response(200, json={"data": {"label": "sk-or-v1-tes...abc1", "usage": 0, **facts}}))


def refuses() -> Upstream:
    return Upstream(lambda: httpx.Response(401, json={"error": {"message": "User not found.", "code": 401}}))


def unreachable() -> Upstream:
    def fail() -> httpx.Response:
        raise httpx.ConnectError("refused")

    return Upstream(fail)


def pool_key(tail: str = "abc1", **columns: Any) -> OpenRouterKey:
    key = add_key(actor=COMMAND_LINE, secret=Sealed(f"sk-or-v1-test-maintenance-{tail}"), name=f"prod-{tail}")
    OpenRouterKey.objects.filter(pk=key.pk).update(**columns)
    key.refresh_from_db()
    return key


def bench(key: OpenRouterKey, cause: Cause = Cause.KEY_RATE_LIMITED, **columns: Any) -> Cooldown:
    now = timezone.now()
    return Cooldown.objects.create(**{"key": key, "cause": cause, "started_at": now - HOUR, "until": now, **columns})


def in_flight() -> uuid.UUID:
    client, key = uuid.uuid4(), uuid.uuid4()
    row = InFlight.objects.create(id=uuid.uuid4(), client_id=client, key_id=key, model="m", started_at=timezone.now())
    return row.id


# -- Trials ----------------------------------------------------------------------------------------------------------
def test_a_trial_whose_request_is_gone_is_free_again() -> None:
    cooldown = bench(pool_key(), trial=uuid.uuid4(), trial_at=timezone.now())

    assert reset_cooldowns(timezone.now()) == 1

    cooldown.refresh_from_db()
    assert (cooldown.trial, cooldown.trial_at, cooldown.cleared_at) == (None, None, None)


def test_a_trial_without_an_event_for_too_long_is_free_again() -> None:
    now = timezone.now()
    cooldown = bench(pool_key(), trial=in_flight(), trial_at=now - settings.TRIAL_SECONDS * SECOND)

    assert reset_cooldowns(now) == 1

    cooldown.refresh_from_db()
    assert cooldown.trial is None


def test_a_trial_that_runs_is_left_alone() -> None:
    now = timezone.now()
    cooldown = bench(pool_key(), trial=in_flight(), trial_at=now - (settings.TRIAL_SECONDS - 1) * SECOND)

    assert reset_cooldowns(now) == 0

    cooldown.refresh_from_db()
    assert cooldown.trial is not None


def test_a_due_rate_limit_stays_open_for_its_trial_and_is_not_asked_about() -> None:
    upstream = accepts()
    cooldown = bench(pool_key(), until=timezone.now() - MINUTE)

    reset_cooldowns(timezone.now(), transport=upstream)

    cooldown.refresh_from_db()
    assert cooldown.cleared_at is None
    assert upstream.asked == []


def test_without_anything_to_do_it_takes_two_queries(django_assert_num_queries: Any) -> None:
    bench(pool_key())

    with django_assert_num_queries(2):
        reset_cooldowns(timezone.now())


# -- Causes that GET /key can prove ----------------------------------------------------------------------------------
def test_a_key_limit_with_room_again_is_over() -> None:
    cooldown = bench(pool_key(), Cause.KEY_LIMIT_REACHED, until=timezone.now() + HOUR)

    reset_cooldowns(timezone.now(), transport=accepts(limit=10, limit_remaining=4))

    cooldown.refresh_from_db()
    assert cooldown.cleared_by == "check"


def test_a_key_limit_without_room_lasts_longer() -> None:
    cooldown = bench(pool_key(), Cause.KEY_LIMIT_REACHED)

    reset_cooldowns(timezone.now(), transport=accepts(limit=10, limit_remaining=0))

    before, _ = cooldown.until, cooldown.refresh_from_db()
    assert cooldown.cleared_at is None
    assert cooldown.until > before


def test_a_refused_key_that_is_refused_again_becomes_invalid() -> None:
    key = pool_key()
    bench(key, Cause.KEY_REFUSED)

    reset_cooldowns(timezone.now(), transport=refuses())

    key.refresh_from_db()
    assert key.state == KeyState.INVALID


def test_a_refused_key_that_is_accepted_comes_back() -> None:
    key = pool_key()
    cooldown = bench(key, Cause.KEY_REFUSED)

    reset_cooldowns(timezone.now(), transport=accepts())

    key.refresh_from_db()
    cooldown.refresh_from_db()
    assert (key.state, cooldown.cleared_by) == (KeyState.ACTIVE, "check")


def test_an_upstream_that_can_not_be_reached_changes_nothing_and_is_not_asked_again_at_once() -> None:
    key = pool_key()
    cooldown = bench(key, Cause.KEY_REFUSED)
    upstream = unreachable()

    reset_cooldowns(timezone.now(), transport=upstream)
    reset_cooldowns(timezone.now(), transport=upstream)

    key.refresh_from_db()
    cooldown.refresh_from_db()
    assert (key.state, cooldown.cleared_at) == (KeyState.ACTIVE, None)
    assert upstream.asked == ["abc1"]


@pytest.mark.parametrize(
    ("checked_ago", "until_in", "asked"),
    [
        pytest.param(None, HOUR, True, id="never checked"),
        pytest.param(2 * HOUR, HOUR, True, id="not checked since it began"),
        pytest.param(30 * MINUTE, HOUR, False, id="checked since it began and not due"),
        pytest.param(30 * MINUTE, -SECOND, True, id="checked since it began and due"),
        pytest.param(SECOND, -SECOND, False, id="due and checked a moment ago"),
    ],
)
def test_when_a_cooldown_is_asked_about(checked_ago: dt.timedelta | None, until_in: dt.timedelta, asked: bool) -> None:
    now = timezone.now()
    key = pool_key(checked_at=now - checked_ago if checked_ago else None)
    bench(key, Cause.KEY_LIMIT_REACHED, until=now + until_in)
    upstream = unreachable()

    reset_cooldowns(now, transport=upstream)

    assert bool(upstream.asked) is asked


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.INVALID])
def test_a_key_that_is_out_of_the_pool_is_not_asked_about(state: KeyState) -> None:
    bench(pool_key(state=state), Cause.KEY_REFUSED)
    upstream = accepts()

    reset_cooldowns(timezone.now(), transport=upstream)

    assert upstream.asked == []


# -- Checks on schedule ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("state", "checked_ago", "invalid_for", "due"),
    [
        pytest.param(KeyState.ACTIVE, None, None, True, id="never checked"),
        pytest.param(KeyState.ACTIVE, 5 * MINUTE, None, True, id="active, an interval ago"),
        pytest.param(KeyState.ACTIVE, 4 * MINUTE, None, True, id="active, at the end of the last run"),
        pytest.param(KeyState.ACTIVE, 3 * MINUTE, None, False, id="active, by another scheduler"),
        pytest.param(KeyState.INVALID, 5 * MINUTE, 10 * MINUTE, True, id="invalid in its first hour"),
        pytest.param(KeyState.INVALID, 5 * MINUTE, 2 * HOUR, False, id="invalid for long"),
        pytest.param(KeyState.INVALID, HOUR, 2 * HOUR, True, id="invalid for long, an hour ago"),
        pytest.param(KeyState.INVALID, 5 * MINUTE, None, True, id="invalid since nobody knows when"),
        pytest.param(KeyState.DISABLED, None, None, False, id="disabled"),
        pytest.param(KeyState.RETIRED, None, None, False, id="retired"),
    ],
)
def test_when_a_key_is_due_for_a_check(
    state: KeyState, checked_ago: dt.timedelta | None, invalid_for: dt.timedelta | None, due: bool
) -> None:
    checked_at = NOW - checked_ago if checked_ago else None
    invalid_since = NOW - invalid_for if invalid_for else None

    assert SCHEDULE.is_due(state, checked_at, invalid_since, NOW) is due


def test_the_keys_that_waited_longest_are_checked_first_and_each_once() -> None:
    now = timezone.now()
    pool_key("new1", checked_at=now - HOUR)
    pool_key("old2", checked_at=now - 2 * HOUR)
    pool_key("nev3")
    pool_key("inv4", checked_at=now - 3 * HOUR, state=KeyState.INVALID, invalid_since=now - 3 * HOUR)
    pool_key("dis5", state=KeyState.DISABLED)
    upstream = accepts()

    assert check_keys(now, transport=upstream) == 4
    assert check_keys(now, transport=upstream) == 0
    assert upstream.asked == ["nev3", "inv4", "old2", "new1"]


def test_an_invalid_key_that_is_accepted_again_comes_back_by_itself() -> None:
    key = pool_key(state=KeyState.INVALID, invalid_since=timezone.now() - HOUR)

    check_keys(timezone.now(), transport=accepts())

    key.refresh_from_db()
    assert (key.state, key.invalid_since) == (KeyState.ACTIVE, None)


def test_a_key_that_is_retired_meanwhile_does_not_stop_the_others() -> None:
    now = timezone.now()
    first, second = pool_key("one1", checked_at=now - 2 * HOUR), pool_key("two2", checked_at=now - HOUR)

    def retire_second() -> httpx.Response:
        if OpenRouterKey.objects.get(pk=second.pk).state != KeyState.RETIRED:
            retire_key(second.pk, actor=COMMAND_LINE)
        return httpx.Response(200, json={"data": {}})

    pool_key("thr3", checked_at=now - MINUTE * 30)
    upstream = Upstream(retire_second)

    check_keys(now, transport=upstream)

    assert upstream.asked == ["one1", "thr3"]
    first.refresh_from_db()
    assert first.checked_at is not None


def test_checks_stop_at_their_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "LONGEST_RUN_SECONDS", 0.0)
    pool_key()
    upstream = accepts()

    assert check_keys(timezone.now(), transport=upstream) == 0
    assert upstream.asked == []


def test_a_run_of_checks_is_recorded_before_it_opens_a_secret(new_key: Any) -> None:
    from keys.models import AuditEvent

    keys = [new_key(name=name) for name in ("alpha", "beta")]
    recorded: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        recorded.append(list(AuditEvent.objects.filter(action="key.secrets_used").values_list("actor", "after")))
        return httpx.Response(200, json={"data": {"limit": None}})

    assert maintenance.check_keys(timezone.now(), transport=httpx.MockTransport(answer)) == len(keys)
    assert recorded == [[("task", {"for": "GET /key", "keys": ["alpha", "beta"]})]] * 2
