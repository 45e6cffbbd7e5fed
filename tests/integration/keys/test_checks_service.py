"""A check keeps what OpenRouter says, changes a state only on its word, and ends only what it can prove."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.utils import timezone
from pytest_django import Settings

from keys.causes import Cause
from keys.errors import IllegalStateChange, NotFound
from keys.models import Account, AuditEvent, Cooldown, KeyState, OpenRouterKey
from keys.openrouter import next_reset
from keys.services.audit import TASK, Actor
from keys.services.checks import MANAGEMENT_KEY, CheckOutcome, CheckResult, check_key
from keys.services.keys import retire_key

pytestmark = pytest.mark.django_db

TEXT = "sk-or-v1-test-planted-abc1"
UNAUTHORIZED = {"error": {"message": "User not found.", "code": 401}}


def answering(status: int = 200, body: Any = None, **data: Any) -> httpx.MockTransport:
    content = json.dumps({"data": data} if body is None else body).encode()
    return httpx.MockTransport(lambda request: httpx.Response(status, content=content))


def failing(error: type[httpx.TransportError]) -> httpx.MockTransport:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error(f"no luck with {request.headers['authorization']}")

    return httpx.MockTransport(fail)


Check = Callable[..., CheckResult]


@pytest.fixture
def check(alice: Actor) -> Check:
    def run(key: OpenRouterKey, transport: httpx.BaseTransport) -> CheckResult:
        result = check_key(key.pk, actor=alice, transport=transport)
        key.refresh_from_db()
        return result

    return run


def bench(key: OpenRouterKey, cause: Cause, *, started: dt.timedelta = dt.timedelta(hours=-1)) -> Cooldown:
    start = timezone.now() + started
    return Cooldown.objects.create(key=key, cause=cause, started_at=start, until=start + dt.timedelta(hours=2))


def test_the_key_is_asked_for_with_its_secret_and_our_headers(new_key, check: Check, settings: Settings) -> None:
    settings.OPENROUTER_BASE_URL = "https://upstream.example/api/v1"
    settings.OPENROUTER_HEADERS = {"X-Request-Source": "opensvm-prod"}
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"data": {}})

    check(new_key(TEXT), httpx.MockTransport(answer))
    (request,) = seen
    assert (request.method, str(request.url)) == ("GET", "https://upstream.example/api/v1/key")
    assert request.headers["authorization"] == f"Bearer {TEXT}"
    assert request.headers["x-request-source"] == "opensvm-prod"
    assert request.extensions["timeout"] == dict.fromkeys(["connect", "read", "write", "pool"], 10.0)


def test_what_openrouter_says_is_kept(new_key, check: Check) -> None:
    key = new_key()
    result = check(key, answering(label="prod", limit=10, limit_remaining=2.5, limit_reset="daily", usage=7.5))
    assert (result.outcome, result.state) == (CheckOutcome.ACCEPTED, "active")
    assert (key.label, key.limit_nano, key.limit_remaining_nano) == ("prod", 10_000_000_000, 2_500_000_000)
    assert (key.limit_reset, key.usage_nano, key.check_error) == ("daily", 7_500_000_000, "")
    assert key.checked_at is not None


def test_a_label_that_repeats_the_key_is_cut_to_its_tail(new_key, check: Check) -> None:
    key = new_key(TEXT)
    check(key, answering(label=f"key {TEXT}"))
    assert key.label == "key ...abc1"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (KeyState.ACTIVE, KeyState.INVALID),
        (KeyState.INVALID, KeyState.INVALID),
        (KeyState.DISABLED, KeyState.DISABLED),
        (KeyState.DRAINING, KeyState.DRAINING),
        (KeyState.PENDING, KeyState.PENDING),
    ],
)
def test_a_refused_key_becomes_invalid_only_if_it_was_active(new_key, check: Check, before, after) -> None:
    key = new_key()
    OpenRouterKey.objects.filter(pk=key.pk).update(state=before)
    result = check(key, answering(401, UNAUTHORIZED))
    assert (result.outcome, result.state, key.state) == (CheckOutcome.REFUSED, after, after)
    assert key.check_error == "OpenRouter refuses this key (401): User not found."


def test_a_refusal_is_audited_and_dated(new_key, check: Check) -> None:
    key = new_key()
    check(key, answering(401, UNAUTHORIZED))
    event = AuditEvent.objects.get(action="key.refused")
    assert (event.action, event.before, event.after) == ("key.refused", {"state": "active"}, {"state": "invalid"})
    assert key.invalid_since is not None


def test_a_second_refusal_keeps_since_when_the_key_is_invalid(new_key, check: Check) -> None:
    key = new_key()
    check(key, answering(401, UNAUTHORIZED))
    first = key.invalid_since
    check(key, answering(401, UNAUTHORIZED))
    assert key.invalid_since == first


def test_an_invalid_key_comes_back_by_itself_on_success(new_key, check: Check) -> None:
    key = new_key()
    check(key, answering(401, UNAUTHORIZED))
    bench(key, Cause.KEY_REFUSED)
    result = check(key, answering(limit=None))
    assert (result.state, key.state, key.invalid_since, key.check_error) == ("active", "active", None, "")
    assert Cooldown.objects.get().cleared_by == "check"


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.DRAINING])
def test_success_brings_back_neither_what_is_disabled_nor_what_drains(new_key, check: Check, state: KeyState) -> None:
    key = new_key()
    OpenRouterKey.objects.filter(pk=key.pk).update(state=state)
    check(key, answering(limit=None))
    assert key.state == state


@pytest.mark.parametrize("state", [KeyState.ACTIVE, KeyState.INVALID])
@pytest.mark.parametrize(
    ("transport", "words"),
    [
        (failing(httpx.ConnectTimeout), "did not answer within 10 s"),
        (failing(httpx.ReadTimeout), "did not answer within 10 s"),
        (failing(httpx.ConnectError), "can't be reached"),
        (failing(httpx.RemoteProtocolError), "can't be reached"),
        (answering(500, {}), "answered 500"),
        (answering(429, {}), "answered 429"),
        (answering(302, {}), "redirects are not followed"),
        (answering(200, []), "can't be understood"),
        (answering(200, "x" * 2_000_000), "can't be understood"),
    ],
    ids=["connect timeout", "read timeout", "refused", "cut", "500", "429", "redirect", "no object", "endless"],
)
def test_what_can_not_be_reached_changes_no_state_and_is_told_in_words(
    new_key, check: Check, state: KeyState, transport: httpx.MockTransport, words: str
) -> None:
    key = new_key(TEXT)
    OpenRouterKey.objects.filter(pk=key.pk).update(state=state, label="known")
    bench(key, Cause.KEY_REFUSED)
    result = check(key, transport)
    assert (result.outcome, key.state, key.label) == (CheckOutcome.NO_ANSWER, state, "known")
    assert words in key.check_error
    assert TEXT not in key.check_error + result.message
    assert key.checked_at is not None
    assert Cooldown.objects.get().cleared_at is None


def test_a_success_forgets_the_error_of_the_check_before(new_key, check: Check) -> None:
    key = new_key()
    check(key, failing(httpx.ConnectError))
    check(key, answering(limit=None))
    assert key.check_error == ""


def test_a_secret_that_can_not_be_opened_is_told_and_nothing_is_sent(new_key, check: Check) -> None:
    key = new_key()
    OpenRouterKey.objects.filter(pk=key.pk).update(secret=b"\x01damaged")
    result = check(key, httpx.MockTransport(lambda request: pytest.fail("sent")))
    assert result.outcome is CheckOutcome.NO_ANSWER
    assert "can't be opened" in key.check_error


def test_a_management_key_is_pointed_out(new_key, check: Check) -> None:
    key = new_key()
    result = check(key, answering(is_management_key=True))
    assert (result.message, key.check_error, key.state) == (MANAGEMENT_KEY, MANAGEMENT_KEY, "active")


def test_success_ends_a_refusal_and_leaves_rate_limits_alone(new_key, check: Check) -> None:
    key = new_key(account=Account.objects.create(name="acme"))
    refused = bench(key, Cause.KEY_REFUSED)
    limited = bench(key, Cause.KEY_RATE_LIMITED)
    credit = Cooldown.objects.create(
        account=key.account, cause=Cause.OUT_OF_CREDIT, started_at=limited.started_at, until=limited.until
    )
    check(key, answering(limit=None))
    still_open = set(Cooldown.objects.filter(cleared_at=None).values_list("pk", flat=True))
    assert still_open == {limited.pk, credit.pk}
    refused.refresh_from_db()
    assert refused.cleared_by == "check"


def test_a_cooldown_that_begins_while_openrouter_is_asked_is_newer_than_the_answer(new_key, check: Check) -> None:
    key = new_key()

    def answer(request: httpx.Request) -> httpx.Response:
        bench(key, Cause.KEY_REFUSED, started=dt.timedelta(seconds=0))
        return httpx.Response(200, json={"data": {"limit": None}})

    check(key, httpx.MockTransport(answer))
    assert Cooldown.objects.get().cleared_at is None


def test_room_under_the_limit_ends_a_key_limit(new_key, check: Check) -> None:
    key = new_key()
    bench(key, Cause.KEY_LIMIT_REACHED)
    check(key, answering(limit=10, limit_remaining=0.5))
    assert Cooldown.objects.get().cleared_by == "check"


def test_without_a_word_on_the_limit_a_key_limit_stays_as_it_is(new_key, check: Check) -> None:
    key = new_key()
    cooldown = bench(key, Cause.KEY_LIMIT_REACHED)
    check(key, answering(label="prod"))
    after = Cooldown.objects.get()
    assert (after.cleared_at, after.until) == (None, cooldown.until)


@pytest.mark.parametrize("reset", ["daily", "weekly", "monthly"])
def test_a_used_up_limit_is_lengthened_until_it_starts_anew(new_key, check: Check, reset: str) -> None:
    key = new_key()
    due = timezone.now() - dt.timedelta(minutes=1)
    cooldown = bench(key, Cause.KEY_LIMIT_REACHED)
    Cooldown.objects.filter(pk=cooldown.pk).update(until=due)
    before = next_reset(reset, timezone.now())
    check(key, answering(limit=10, limit_remaining=0, limit_reset=reset))
    assert Cooldown.objects.get().until in {before, next_reset(reset, timezone.now())}
    assert Cooldown.objects.get().cleared_at is None


def test_a_used_up_limit_without_a_reset_is_lengthened_by_the_setting(
    new_key, check: Check, settings: Settings
) -> None:
    key = new_key()
    cooldown = bench(key, Cause.KEY_LIMIT_REACHED)
    Cooldown.objects.filter(pk=cooldown.pk).update(until=timezone.now())
    started = timezone.now()
    check(key, answering(limit=10, limit_remaining=0))
    length = Cooldown.objects.get().until - started
    assert 0 <= length.total_seconds() - settings.BENCH_POLICY.key_limit_seconds < 10


def test_a_key_limit_is_never_shortened(new_key, check: Check) -> None:
    key = new_key()
    cooldown = bench(key, Cause.KEY_LIMIT_REACHED)
    far = timezone.now() + dt.timedelta(days=40)
    Cooldown.objects.filter(pk=cooldown.pk).update(until=far)
    check(key, answering(limit=10, limit_remaining=0, limit_reset="daily"))
    assert Cooldown.objects.get().until == far


def test_a_used_up_limit_opens_no_cooldown_by_itself(new_key, check: Check) -> None:
    key = new_key()
    result = check(key, answering(limit=10, limit_remaining=0))
    assert not Cooldown.objects.exists()
    assert "limit is used up" in result.message


def test_a_key_without_an_account_joins_that_of_its_owner(new_key, check: Check) -> None:
    one, two, three = new_key(), new_key(), new_key()
    check(one, answering(organization_id="org_1", creator_user_id="user_1"))
    check(two, answering(organization_id="org_1"))
    check(three, answering(creator_user_id="user_1"))
    assert one.account == two.account
    assert one.account.organization == "org_1"
    assert three.account.organization == "user_1"
    assert Account.objects.count() == 2


def test_the_operators_account_is_kept_and_told_its_organization(new_key, check: Check) -> None:
    account = Account.objects.create(name="acme")
    key = new_key(account=account)
    check(key, answering(organization_id="org_1"))
    assert key.account == account
    assert key.account.organization == "org_1"


def test_an_account_is_not_given_the_organization_of_another(new_key, check: Check) -> None:
    Account.objects.create(name="real", organization="org_1")
    mistaken = Account.objects.create(name="mistaken")
    key = new_key(account=mistaken)
    check(key, answering(organization_id="org_1"))
    assert key.account == mistaken
    assert key.account.organization == ""


def test_an_account_is_made_also_when_its_name_is_taken(new_key, check: Check) -> None:
    Account.objects.create(name="org_1")
    key = new_key()
    check(key, answering(organization_id="org_1"))
    assert (key.account.name, key.account.organization) == ("org_1 (2)", "org_1")


def test_a_key_that_is_retired_while_openrouter_is_asked_stays_as_it_is(new_key, check: Check, alice: Actor) -> None:
    key = new_key()

    def answer(request: httpx.Request) -> httpx.Response:
        retire_key(key.pk, actor=alice)
        return httpx.Response(401, json=UNAUTHORIZED)

    result = check(key, httpx.MockTransport(answer))
    assert (result.outcome, key.state, key.checked_at) == (CheckOutcome.NO_ANSWER, "retired", None)


def test_a_retired_key_can_not_be_checked(new_key, alice: Actor) -> None:
    key = new_key()
    retire_key(key.pk, actor=alice)
    with pytest.raises(IllegalStateChange, match="retired"):
        check_key(key.pk, actor=alice, transport=answering())


def test_a_key_that_does_not_exist_is_not_found(alice: Actor) -> None:
    with pytest.raises(NotFound):
        check_key(uuid.uuid4(), actor=alice, transport=answering())


def test_the_log_names_the_key_by_its_tail(new_key, check: Check, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key(TEXT)
    with caplog.at_level("INFO", logger="opensvm"):
        check(key, answering(401, UNAUTHORIZED))
    record = next(record for record in caplog.records if getattr(record, "event", "") == "key.checked")
    assert "key ending ...abc1" in record.getMessage()
    assert all(TEXT not in str(vars(record)) for record in caplog.records)


def test_every_check_of_a_person_is_in_the_audit(new_key, check: Check) -> None:
    key = new_key()
    for _ in range(2):
        check(key, answering(limit=None))
    events = AuditEvent.objects.filter(action="key.checked").order_by("id")
    assert [(event.actor, event.before["check"], event.after["check"]) for event in events] == [
        ("alice", "", "OpenRouter accepts this key."),
        ("alice", "OpenRouter accepts this key.", "OpenRouter accepts this key."),
    ]


def test_checks_of_the_task_are_in_the_audit_when_their_outcome_changes(new_key) -> None:
    key = new_key()
    answers = [answering(limit=1, limit_remaining=0)] * 2 + [answering(limit=None)] * 2 + [answering(500, {})] * 2
    for transport in answers:
        check_key(key.pk, actor=TASK, transport=transport)
    said = AuditEvent.objects.filter(action="key.checked").order_by("id").values_list("after__check", flat=True)
    assert list(said)[:2] == ["OpenRouter accepts this key, but its limit is used up.", "OpenRouter accepts this key."]
    assert len(said) == 3
