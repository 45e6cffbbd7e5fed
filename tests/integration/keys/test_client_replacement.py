"""A client's key is replaced: the new one works at once, the old one until its grace period is over."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from keys.client_keys import is_well_formed
from keys.errors import DuplicateName, IllegalStateChange, InvalidField
from keys.models import AuditEvent, Client
from keys.sealing import get_vault
from keys.services import clients
from keys.services.audit import Actor

pytestmark = pytest.mark.django_db

ALICE = Actor("alice")
DAY = dt.timedelta(days=1)


def create(name: str = "phone", **values: object) -> Client:
    return clients.create_client(actor=ALICE, name=name, **values)[1]  # type: ignore[arg-type]


def replace(client: Client, grace: dt.timedelta = DAY, name: str = "") -> tuple[str, Client]:
    client_key, new, _ = clients.replace_client(client.pk, actor=ALICE, grace=grace, name=name)
    client.refresh_from_db()
    return client_key, new


def test_the_new_client_has_a_key_of_its_own_and_the_old_ones_scopes_and_expiry() -> None:
    expires_at = timezone.now() + 30 * DAY
    old = create(scopes=("stats",), expires_at=expires_at)
    client_key, new = replace(old)
    assert is_well_formed(client_key)
    assert new.digest == get_vault().client_digest(client_key) != old.digest
    assert (new.name, new.scopes, new.expires_at) == ("phone.2", "messages stats", expires_at)
    assert old.replaced_by == new


def test_the_old_one_ends_when_its_grace_is_over() -> None:
    old = create()
    before = timezone.now()
    replace(old)
    assert old.revoked_at is None
    assert old.expires_at is not None
    assert before + DAY <= old.expires_at <= timezone.now() + DAY


def test_the_grace_does_not_lengthen_a_life() -> None:
    expires_at = timezone.now() + dt.timedelta(hours=1)
    old = create(expires_at=expires_at)
    replace(old)
    assert old.expires_at == expires_at


def test_without_grace_the_old_one_is_revoked_at_once() -> None:
    old = create()
    replace(old, dt.timedelta())
    assert old.revoked_at is not None


def test_names_count_on_from_the_first_one() -> None:
    _, second = replace(create())
    _, third = replace(second)
    assert third.name == "phone.3"
    assert replace(third, name="tablet")[1].name == "tablet"


@pytest.mark.parametrize("state", ["revoked", "expired", "replaced"])
def test_what_has_ended_is_not_replaced(state: str) -> None:
    old = create()
    if state == "revoked":
        clients.revoke_client(old.pk, actor=ALICE)
    elif state == "replaced":
        replace(old)
    else:
        Client.objects.update(expires_at=timezone.now() - DAY)
    count = Client.objects.count()
    with pytest.raises(IllegalStateChange, match=f"is {state}: it can't be replaced"):
        replace(old)
    assert Client.objects.count() == count


@pytest.mark.parametrize("days", [-1, 91])
def test_a_grace_that_is_no_grace_is_refused(days: int) -> None:
    with pytest.raises(InvalidField, match="0 to 90 days"):
        replace(create(), dt.timedelta(days=days))


def test_a_name_that_is_taken_leaves_everything_as_it_was() -> None:
    old = create()
    create("tablet")
    with pytest.raises(DuplicateName):
        replace(old, name="tablet")
    old.refresh_from_db()
    assert (old.replaced_by, old.expires_at) == (None, None)


def test_it_is_in_the_audit_and_the_key_is_not() -> None:
    old = create()
    client_key, new = replace(old)
    event = AuditEvent.objects.get(action="client.replaced")
    assert event.after["replaced_by"] == "phone.2"
    assert event.object_id == str(old.pk)
    assert client_key not in str(list(AuditEvent.objects.values()))
    assert AuditEvent.objects.filter(action="client.created", object_id=str(new.pk)).exists()
