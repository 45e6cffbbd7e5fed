"""Accounts and model aliases are saved and deleted with an audit row."""

from __future__ import annotations

import uuid

import pytest

from keys.errors import DuplicateName, InvalidField, NotFound
from keys.models import Account, AuditEvent, ModelAlias
from keys.services.accounts import get_or_create_account, save_account
from keys.services.aliases import delete_alias, save_alias
from keys.services.audit import Actor

pytestmark = pytest.mark.django_db


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("action", flat=True))


def test_an_account_is_made_and_changed(alice: Actor) -> None:
    made = save_account(actor=alice, name=" acme ", organization="org_1")
    save_account(actor=alice, name="acme inc", organization="org_1", account_id=made.pk)
    assert Account.objects.values_list("name", "organization").get() == ("acme inc", "org_1")
    assert actions() == ["account.added", "account.edited"]
    assert AuditEvent.objects.latest("id").after == {"name": "acme inc"}


def test_an_account_is_found_by_name_or_made(alice: Actor) -> None:
    assert get_or_create_account("acme", actor=alice) == get_or_create_account(" acme", actor=alice)
    assert actions() == ["account.added"]


def test_the_name_of_an_account_is_given_once(alice: Actor) -> None:
    save_account(actor=alice, name="acme")
    other = save_account(actor=alice, name="other")
    with pytest.raises(DuplicateName):
        save_account(actor=alice, name="acme")
    with pytest.raises(DuplicateName):
        save_account(actor=alice, name="acme", account_id=other.pk)


def test_an_account_that_does_not_exist_is_not_found(alice: Actor) -> None:
    with pytest.raises(NotFound):
        save_account(actor=alice, name="acme", account_id=uuid.uuid4())


def test_an_alias_is_made_changed_and_deleted(alice: Actor) -> None:
    alias = save_alias(actor=alice, name="fast", target="anthropic/claude-haiku-4.5")
    save_alias(actor=alice, name="fast", target="anthropic/claude-haiku-5.5", alias_id=alias.pk)
    assert ModelAlias.objects.get(name="fast").target == "anthropic/claude-haiku-5.5"
    delete_alias(alias.pk, actor=alice)
    assert not ModelAlias.objects.filter(name="fast").exists()
    assert actions() == ["alias.added", "alias.edited", "alias.deleted"]
    assert AuditEvent.objects.latest("id").object_id == str(alias.pk)


def test_the_name_of_an_alias_is_given_once(alice: Actor) -> None:
    with pytest.raises(DuplicateName, match="claude-3-opus-4"):  # one of the guide's, made by migration
        save_alias(actor=alice, name="claude-3-opus-4", target="anthropic/claude-opus-4")


@pytest.mark.parametrize(("name", "target", "field"), [("", "b", "name"), ("a b", "b", "name"), ("a", "b c", "target")])
def test_what_is_no_model_name_is_refused(alice: Actor, name: str, target: str, field: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        save_alias(actor=alice, name=name, target=target)
    assert refusal.value.field == field


def test_an_alias_that_does_not_exist_is_not_found(alice: Actor) -> None:
    with pytest.raises(NotFound):
        delete_alias(10**6, actor=alice)
