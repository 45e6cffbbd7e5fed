"""Clients: the key exists once, in the answer of `create_client`, and nowhere else."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.utils import timezone

from keys.client_keys import is_well_formed
from keys.errors import DuplicateName, IllegalStateChange, InvalidField, NotFound
from keys.models import AuditEvent, Client
from keys.sealing import get_vault
from keys.services.audit import Actor
from keys.services.clients import create_client, edit_client, revoke_client

pytestmark = pytest.mark.django_db


def test_a_client_is_found_by_the_digest_of_its_key_and_the_key_is_not_stored(alice: Actor) -> None:
    client_key, made = create_client(actor=alice, name="claude code")
    assert is_well_formed(client_key)
    client = Client.objects.get(digest=get_vault().client_digest(client_key))
    assert (client.pk, client.scopes, client.prefix) == (made.pk, "messages", client_key[:17])
    stored = str(Client.objects.values().get()) + str(list(AuditEvent.objects.values()))
    assert client_key not in stored
    assert client_key[17:] not in stored


def test_the_scope_messages_is_always_there(alice: Actor) -> None:
    _, client = create_client(actor=alice, name="monitoring", scopes=["stats"])
    assert client.scopes == "messages stats"
    assert client.has_scope("stats")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\tb"}, "name"),
        ({"scopes": ["admin"]}, "scopes"),
        ({"expires_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "expires_at"),
        ({"expires_at": dt.datetime(2999, 1, 1)}, "expires_at"),  # noqa: DTZ001 - that is the test
    ],
    ids=str,
)
def test_what_can_not_be_stored_is_refused_by_field(alice: Actor, changes, field: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        create_client(**{"actor": alice, "name": "bob"} | changes)
    assert refusal.value.field == field
    assert not Client.objects.exists()


def test_a_name_is_given_once_even_when_its_holder_is_revoked(alice: Actor) -> None:
    _, client = create_client(actor=alice, name="bob")
    revoke_client(client.pk, actor=alice)
    with pytest.raises(DuplicateName, match="bob"):
        create_client(actor=alice, name="bob")


def test_revoking_is_final_and_is_told_the_second_time(alice: Actor) -> None:
    _, client = create_client(actor=alice, name="bob")
    revoke_client(client.pk, actor=alice)
    client.refresh_from_db()
    first = client.revoked_at
    assert first is not None
    with pytest.raises(IllegalStateChange, match="bob is revoked"):
        revoke_client(client.pk, actor=alice)
    client.refresh_from_db()
    assert client.revoked_at == first
    assert AuditEvent.objects.filter(action="client.revoked").count() == 1


def test_name_and_expiry_can_be_edited(alice: Actor) -> None:
    _, client = create_client(actor=alice, name="bob")
    moment = timezone.now() + dt.timedelta(days=1)
    edit_client(client.pk, actor=alice, name="robert", expires_at=moment)
    client.refresh_from_db()
    assert (client.name, client.expires_at) == ("robert", moment)
    assert AuditEvent.objects.get(action="client.edited").before == {"name": "bob", "expires_at": None}


def test_an_edit_can_not_take_the_name_of_another_client(alice: Actor) -> None:
    create_client(actor=alice, name="alice")
    _, bob = create_client(actor=alice, name="bob")
    with pytest.raises(DuplicateName, match="alice"):
        edit_client(bob.pk, actor=alice, name="alice", expires_at=None)


def test_a_client_that_does_not_exist_is_not_found(alice: Actor) -> None:
    with pytest.raises(NotFound):
        revoke_client(uuid.uuid4(), actor=alice)
