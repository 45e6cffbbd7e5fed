"""Keys are added once, change state by the rules, and leave an audit row with each change."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from keys.errors import DuplicateKey, DuplicateName, IllegalStateChange, InvalidField, InvalidKeyText, NotFound
from keys.models import Account, AuditEvent, KeyState, OpenRouterKey
from keys.sealing import KEY_COLUMN, KEY_TABLE, Sealed, get_vault
from keys.services.audit import Actor
from keys.services.keys import add_key, disable_key, edit_key, enable_key, retire_key

pytestmark = pytest.mark.django_db

TEXT = "sk-or-v1-test-planted-abc1"


def set_state(key: OpenRouterKey, state: KeyState) -> None:
    OpenRouterKey.objects.filter(pk=key.pk).update(state=state)


def last_event() -> AuditEvent:
    return AuditEvent.objects.order_by("-id")[0]


def test_an_added_key_is_active_sealed_and_due_for_rotation_in_90_days(new_key, alice: Actor) -> None:
    added = new_key(f"  {TEXT}\n", name="prod-1", tier=2, note="Alice's")
    key = OpenRouterKey.objects.get(pk=added.pk)
    assert (key.name, key.state, key.tier, key.note, key.tail) == ("prod-1", "active", 2, "Alice's", "...abc1")
    assert TEXT.encode() not in bytes(key.secret)
    assert get_vault().unseal(key.secret, table=KEY_TABLE, column=KEY_COLUMN, row=key.pk).reveal() == TEXT
    assert key.rotates_at - key.created_at == dt.timedelta(days=90)


def test_adding_leaves_an_audit_row_without_the_key(new_key) -> None:
    key = new_key(TEXT, account=Account.objects.create(name="acme"))
    event = last_event()
    assert (event.actor, event.action, event.object_id, event.ip) == ("alice", "key.added", str(key.pk), "192.0.2.1")
    assert event.after["account"] == "acme"
    assert TEXT not in str(vars(event))


def test_who_added_a_key_is_kept(new_key) -> None:
    user = User.objects.create_user("bob")
    assert new_key(actor=Actor("bob", user_id=user.pk)).created_by == user


@pytest.mark.parametrize("change", [None, disable_key, retire_key], ids=["active", "disabled", "retired"])
def test_the_same_key_can_not_be_added_twice_whatever_became_of_it(new_key, alice: Actor, change) -> None:
    first = new_key(TEXT, name="first")
    if change:
        change(first.pk, actor=alice)
    with pytest.raises(DuplicateKey, match="as first") as refusal:
        new_key(f" {TEXT} ", name="second")
    assert refusal.value.key_id == first.pk
    assert TEXT not in str(refusal.value)
    assert OpenRouterKey.objects.count() == 1


def test_a_name_is_given_once(new_key) -> None:
    new_key(name="prod-1")
    with pytest.raises(DuplicateName, match="prod-1"):
        new_key(name=" prod-1 ")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"text": "not a key"}, "secret"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\0"}, "name"),
        ({"tier": -1}, "tier"),
        ({"tier": 40_000}, "tier"),
        ({"note": "a\0b"}, "note"),
    ],
    ids=str,
)
def test_what_can_not_be_stored_is_refused_by_field_and_stores_nothing(new_key, changes, field: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        new_key(**changes)
    assert refusal.value.field == field
    assert not OpenRouterKey.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_refused_text_is_not_repeated(new_key) -> None:
    with pytest.raises(InvalidKeyText) as refusal:
        new_key("sk-or-v1-test planted")
    assert "planted" not in str(refusal.value)


def test_an_edit_changes_what_may_be_changed_and_records_only_that(new_key, alice: Actor) -> None:
    key = new_key(name="old")
    acme = Account.objects.create(name="acme")
    edit_key(key.pk, actor=alice, name="new", account=acme, tier=1, note="")
    key.refresh_from_db()
    assert (key.name, key.account, key.tier) == ("new", acme, 1)
    assert last_event().before == {"name": "old", "account_id": None}
    assert last_event().after == {"name": "new", "account_id": str(acme.pk)}


def test_an_edit_without_a_change_leaves_no_audit_row(new_key, alice: Actor) -> None:
    key = new_key(name="same")
    before = AuditEvent.objects.count()
    edit_key(key.pk, actor=alice, name="same", account=None, tier=1, note="")
    assert AuditEvent.objects.count() == before


def test_an_edit_can_not_take_the_name_of_another_key(new_key, alice: Actor) -> None:
    new_key(name="taken")
    key = new_key(name="mine")
    with pytest.raises(DuplicateName, match="taken"):
        edit_key(key.pk, actor=alice, name="taken", account=None, tier=1, note="")
    key.refresh_from_db()
    assert key.name == "mine"


def test_a_disabled_key_comes_back_when_it_is_enabled(new_key, alice: Actor) -> None:
    key = new_key()
    disable_key(key.pk, actor=alice)
    key.refresh_from_db()
    assert key.state == KeyState.DISABLED
    enable_key(key.pk, actor=alice)
    key.refresh_from_db()
    assert key.state == KeyState.ACTIVE
    assert (last_event().action, last_event().before, last_event().after) == (
        "key.enabled",
        {"state": "disabled"},
        {"state": "active"},
    )


def test_enabling_an_invalid_key_forgets_since_when_it_was_invalid(new_key, alice: Actor) -> None:
    key = new_key()
    OpenRouterKey.objects.filter(pk=key.pk).update(state=KeyState.INVALID, invalid_since=timezone.now())
    enable_key(key.pk, actor=alice)
    key.refresh_from_db()
    assert (key.state, key.invalid_since) == ("active", None)


@pytest.mark.parametrize("state", [state for state in KeyState if state is not KeyState.RETIRED])
def test_a_key_can_be_retired_in_every_state_and_loses_its_secret_only(new_key, alice: Actor, state) -> None:
    key = new_key()
    set_state(key, state)
    retire_key(key.pk, actor=alice)
    retired = OpenRouterKey.objects.get(pk=key.pk)
    assert (retired.state, bytes(retired.secret)) == ("retired", b"")
    assert (retired.fingerprint, retired.tail, retired.name) == (key.fingerprint, key.tail, key.name)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (disable_key, KeyState.DISABLED),
        (disable_key, KeyState.RETIRED),
        (enable_key, KeyState.ACTIVE),
        (enable_key, KeyState.PENDING),
        (enable_key, KeyState.DRAINING),
        (enable_key, KeyState.RETIRED),
        (retire_key, KeyState.RETIRED),
    ],
)
def test_an_illegal_change_is_refused_with_the_state_it_is_in(new_key, alice: Actor, change, state: KeyState) -> None:
    key = new_key()
    OpenRouterKey.objects.filter(pk=key.pk).update(state=state, secret=b"")
    events = AuditEvent.objects.count()
    with pytest.raises(IllegalStateChange, match=f"is {state.value}: it can't be"):
        change(key.pk, actor=alice)
    key.refresh_from_db()
    assert key.state == state
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize("change", [disable_key, enable_key, retire_key])
def test_a_key_that_does_not_exist_is_not_found(change: Callable[..., object], alice: Actor) -> None:
    with pytest.raises(NotFound):
        change(uuid.uuid4(), actor=alice)


def test_the_log_names_a_key_by_its_tail(new_key, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="opensvm"):
        new_key(TEXT)
    record = caplog.records[-1]
    assert (record.event, record.key) == ("key.added", "...abc1")
    assert TEXT not in str(vars(record))


@pytest.mark.django_db(transaction=True)
def test_of_two_that_add_the_same_key_at_once_one_is_told(alice: Actor) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(2, timeout=20)

    def add(name: str) -> None:
        together.wait()
        try:
            add_key(actor=alice, secret=Sealed(TEXT), name=name)
            outcomes.append("added")
        except DuplicateKey:
            outcomes.append("duplicate")
        finally:
            connection.close()

    threads = [threading.Thread(target=add, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["added", "duplicate"]
