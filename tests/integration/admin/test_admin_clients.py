"""Clients, accounts and aliases in the admin."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import reverse
from django.utils import timezone

from keys.client_keys import is_well_formed
from tests.integration.admin.builders import build_account, build_client, build_key, build_request
from tests.integration.admin.test_admin_keys import all_stored_text, text_of

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.django_db

ADD = "admin:keys_client_add"
LIST = "admin:keys_client_changelist"


def create(desk: Client, **values: str) -> Any:
    return desk.post(reverse(ADD), {"name": "phone", "expires_at_0": "", "expires_at_1": ""} | values)


def key_in(page: str) -> str:
    return re.findall(r"sk-ant-api03-[A-Za-z0-9]+", page)[0]


def do(desk: Client, client: Any, action: str) -> str:
    return text_of(desk.post(reverse("admin:keys_client_do", args=[client.pk, action]), follow=True))


def test_a_new_client_key_is_shown_once_on_a_page_that_nobody_stores(desk: Client) -> None:
    from keys.models import Client as Holder

    answer = create(desk)

    client_key = key_in(text_of(answer))
    holder = Holder.objects.get()
    assert is_well_formed(client_key)
    assert holder.scopes == "messages"
    assert "no-store" in answer["Cache-Control"]
    others = [desk.get(reverse(LIST)), desk.get(reverse("admin:keys_client_change", args=[holder.pk]))]
    others += [desk.get(reverse("admin:index")), create(desk), desk.get(reverse("admin:keys_auditevent_changelist"))]
    assert all(client_key not in text_of(other) for other in others)
    assert all(client_key not in text for text in all_stored_text())
    assert client_key not in json.dumps(dict(desk.session), default=str) + str(desk.cookies)


def test_the_page_of_a_new_client_has_a_curl_that_a_shell_understands(desk: Client) -> None:
    import html

    page = text_of(create(desk))

    curl = html.unescape(re.findall(r"(?s)<pre[^>]*>(curl .*?)</pre>", page)[0])
    words = shlex.split(curl)
    assert words[1].endswith("/v1/messages")
    assert f"x-api-key: {key_in(page)}" in words
    assert json.loads(words[-1])["messages"]


def test_a_client_may_get_the_scope_stats_and_an_expiry(desk: Client) -> None:
    from keys.models import Client as Holder

    create(desk, may_read_stats="on", expires_at_0="2100-01-31", expires_at_1="12:00:00")

    holder = Holder.objects.get()
    assert holder.has_scope("stats")
    assert holder.expires_at == dt.datetime(2100, 1, 31, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "taken"}, "already exists"),
        ({"name": ""}, "required"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00:00"}, "would have expired already"),
    ],
    ids=["name taken", "no name", "expired"],
)
def test_a_client_that_is_refused_gets_no_key(desk: Client, values: dict[str, str], words: str) -> None:
    from keys.models import Client as Holder

    build_client("taken")

    page = text_of(create(desk, **values))

    assert words in page
    assert not re.search(r"sk-ant-api03-[A-Za-z0-9]{40}", page)
    assert Holder.objects.count() == 1


def test_revoking_asks_first_and_is_for_ever(desk: Client) -> None:
    client = build_client("phone")

    asked = text_of(desk.get(reverse("admin:keys_client_do", args=[client.pk, "revoke"])))
    client.refresh_from_db()
    revoked_when_asked = client.revoked_at
    said = do(desk, client, "revoke")

    assert "can&#x27;t be undone" in asked
    assert revoked_when_asked is None
    assert "1 revoked." in said
    assert "1 skipped (already revoked)" in do(desk, client, "revoke")
    client.refresh_from_db()
    assert client.revoked_at is not None
    assert "revoked</span>" in text_of(desk.get(reverse(LIST)))


def test_name_and_expiry_of_a_client_can_be_changed_and_nothing_else(desk: Client) -> None:
    client = build_client("old")
    typed = {"name": "new", "expires_at_0": "2100-01-01", "expires_at_1": "00:00:00", "scopes": "messages stats"}

    desk.post(reverse("admin:keys_client_change", args=[client.pk]), {**typed, "digest": "0", "prefix": "x"})

    changed = type(client).objects.get()
    assert (changed.name, changed.expires_at is not None) == ("new", True)
    assert (changed.scopes, changed.digest, changed.prefix) == ("messages", client.digest, client.prefix)


def test_the_list_of_clients_shows_state_last_use_and_cost_of_today(desk: Client) -> None:
    client = build_client("phone", last_used_at=timezone.now())
    build_client("old", expires_at=timezone.now() - dt.timedelta(days=1))
    build_request(client, build_key(), cost_nano=7_000_000)

    page = text_of(desk.get(reverse(LIST)))

    assert "$0.007" in page
    assert "expired</span>" in page
    assert "valid</span>" in page


def test_an_account_is_added_and_changed_by_its_service(desk: Client) -> None:
    from keys.models import Account, AuditEvent

    desk.post(reverse("admin:keys_account_add"), {"name": "acme", "organization": "org_1"})
    account = Account.objects.get()
    desk.post(reverse("admin:keys_account_change", args=[account.pk]), {"name": "acme 2", "organization": "org_1"})

    account.refresh_from_db()
    assert account.name == "acme 2"
    assert set(AuditEvent.objects.values_list("action", "actor")) == {
        ("account.added", "olivia"),
        ("account.edited", "olivia"),
    }


def test_an_account_shows_its_keys(desk: Client) -> None:
    account = build_account()
    for number in range(12):
        build_key(f"one of many {number}", account=account)

    page = text_of(desk.get(reverse("admin:keys_account_changelist")))

    assert "one of many 9 " in page
    assert "and 2 more" in page


def test_an_alias_is_added_changed_and_deleted_by_its_service(desk: Client) -> None:
    from keys.models import AuditEvent, ModelAlias

    desk.post(reverse("admin:keys_modelalias_add"), {"name": "fast", "target": "maker/quick"})
    alias = ModelAlias.objects.get(name="fast")
    desk.post(reverse("admin:keys_modelalias_change", args=[alias.pk]), {"name": "fast", "target": "maker/quicker"})
    alias.refresh_from_db()
    target = alias.target
    desk.post(reverse("admin:keys_modelalias_delete", args=[alias.pk]), {"post": "yes"})

    assert target == "maker/quicker"
    assert not ModelAlias.objects.filter(pk=alias.pk).exists()
    actions = list(AuditEvent.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["alias.added", "alias.edited", "alias.deleted"]


def test_several_aliases_are_deleted_by_their_service(desk: Client) -> None:
    from keys.models import AuditEvent, ModelAlias

    ids = list(ModelAlias.objects.values_list("pk", flat=True))
    chosen = {"action": "delete_selected", "_selected_action": [str(pk) for pk in ids], "post": "yes"}

    desk.post(reverse("admin:keys_modelalias_changelist"), chosen)

    assert not ModelAlias.objects.exists()
    assert AuditEvent.objects.filter(action="alias.deleted").count() == len(ids)


def test_an_alias_with_a_space_is_refused_at_its_field(desk: Client) -> None:
    page = text_of(desk.post(reverse("admin:keys_modelalias_add"), {"name": "fast", "target": "maker/a b"}))

    assert "can&#x27;t hold a space" in page
