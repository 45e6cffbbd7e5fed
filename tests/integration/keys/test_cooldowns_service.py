"""What keeps a key from being selected, and how an operator ends it."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from django.utils import timezone

from keys.causes import Cause
from keys.errors import NotFound
from keys.models import Account, AuditEvent, Cooldown
from keys.services.audit import Actor
from keys.services.cooldowns import clear_cooldowns, find_blocking

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


def bench(minutes: float = 5, cause: Cause = Cause.KEY_RATE_LIMITED, **target: Any) -> Cooldown:
    """Open a cooldown that ends `minutes` after NOW."""
    until = NOW + dt.timedelta(minutes=minutes)
    return Cooldown.objects.create(cause=cause, started_at=NOW - dt.timedelta(hours=1), until=until, **target)


def test_a_key_without_cooldowns_is_not_blocked(new_key) -> None:
    key = new_key()
    found = find_blocking([key.pk], NOW)[key.pk]
    assert not found.is_blocked
    assert not found.is_ready_to_retry
    assert (found.free_at, found.earliest_until, found.cooldowns) == (None, None, ())


def test_a_benched_key_is_blocked_until_all_its_cooldowns_are_due(new_key) -> None:
    key = new_key()
    bench(5, key=key)
    bench(10, Cause.KEY_LIMIT_REACHED, key=key, detail="daily limit")
    found = find_blocking([key.pk], NOW)[key.pk]
    assert found.is_blocked
    assert not found.is_ready_to_retry
    assert found.earliest_until == NOW + dt.timedelta(minutes=5)
    assert found.free_at == NOW + dt.timedelta(minutes=10)
    assert [(one.label, one.detail) for one in found.cooldowns] == [
        ("key limit reached", "daily limit"),
        ("key rate-limited", ""),
    ]


def test_a_due_key_is_ready_to_retry(new_key) -> None:
    key = new_key()
    bench(0, key=key)
    found = find_blocking([key.pk], NOW)[key.pk]
    assert found.is_blocked
    assert found.is_ready_to_retry


def test_a_cooldown_of_the_account_blocks_all_its_keys_and_no_other(new_key) -> None:
    account = Account.objects.create(name="acme")
    one, two, other = new_key(account=account), new_key(account=account), new_key()
    bench(cause=Cause.OUT_OF_CREDIT, account=account)
    found = find_blocking([one.pk, two.pk, other.pk], NOW)
    assert [found[key.pk].is_blocked for key in (one, two, other)] == [True, True, False]
    assert found[one.pk].cooldowns[0].is_of_account


def test_a_cooldown_for_some_models_does_not_block_the_key(new_key) -> None:
    key = new_key()
    bench(key=key, pattern=":free")
    found = find_blocking([key.pk], NOW)[key.pk]
    assert not found.is_blocked
    assert [one.pattern for one in found.cooldowns] == [":free"]


def test_closed_cooldowns_count_no_more(new_key) -> None:
    key = new_key()
    bench(key=key, cleared_at=NOW)
    assert not find_blocking([key.pk], NOW)[key.pk].is_blocked


def test_keys_that_do_not_exist_are_left_out() -> None:
    assert find_blocking([uuid.uuid4()], NOW) == {}


@pytest.mark.parametrize("keys", [1, 20])
def test_reading_what_blocks_takes_two_queries_for_any_number_of_keys(new_key, django_assert_num_queries, keys) -> None:
    made = [new_key().pk for _ in range(keys)]
    with django_assert_num_queries(2):
        find_blocking(made, NOW)


def test_clearing_ends_the_cooldowns_of_the_key_and_of_its_account(new_key, alice: Actor) -> None:
    account = Account.objects.create(name="acme")
    key, other = new_key(account=account), new_key()
    bench(key=key, trial=uuid.uuid4(), trial_at=NOW)
    bench(cause=Cause.OUT_OF_CREDIT, account=account)
    bench(key=other)
    assert clear_cooldowns(key.pk, actor=alice) == 2
    assert not find_blocking([key.pk], timezone.now())[key.pk].is_blocked
    assert find_blocking([other.pk], timezone.now())[other.pk].is_blocked
    assert set(Cooldown.objects.filter(cleared_by="alice").values_list("trial", flat=True)) == {None}
    assert AuditEvent.objects.latest("id").before == {"causes": ["key_rate_limited", "out_of_credit"]}


def test_clearing_a_key_without_an_account_leaves_accounts_alone(new_key, alice: Actor) -> None:
    bench(cause=Cause.OUT_OF_CREDIT, account=Account.objects.create(name="acme"))
    assert clear_cooldowns(new_key().pk, actor=alice) == 0
    assert Cooldown.objects.filter(cleared_at=None).count() == 1


def test_clearing_nothing_leaves_no_audit_row(new_key, alice: Actor) -> None:
    key = new_key()
    before = AuditEvent.objects.count()
    assert clear_cooldowns(key.pk, actor=alice) == 0
    assert AuditEvent.objects.count() == before


def test_clearing_a_key_that_does_not_exist_is_not_found(alice: Actor) -> None:
    with pytest.raises(NotFound):
        clear_cooldowns(uuid.uuid4(), actor=alice)
