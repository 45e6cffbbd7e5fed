"""Every address and action of the admin, for each role and for nobody. A page that is not in the table fails a test."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.urls import get_resolver, reverse

from keys.admin.client_actions import CLIENT_ACTIONS
from keys.admin.key_actions import KEY_ACTIONS
from keys.models import AuditEvent, KeyImport, OpenRouterKey
from keys.sealing import Sealed
from keys.services.audit import Actor
from keys.services.prepared_imports import prepare_import
from tests.integration.admin.builders import build_everything, secret_text
from tests.sandbox import SandboxFixture

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

SUPERUSER, OPERATOR, AUDITOR, STAFF, STRANGER, NOBODY = "superuser", "Operators", "Auditors", "staff", "stranger", None
DESK = {SUPERUSER, OPERATOR}
READERS = {SUPERUSER, OPERATOR, AUDITOR}
ROOT = {SUPERUSER}
NONE: set[str] = set()

# Who may open an address, and who may post to it. 403 for everybody else who is on the staff.
OF_DESK = ("openrouterkey", "account", "client", "modelalias")
READ_ONLY = {"cooldown": DESK, "requestlog": READERS, "auditevent": READERS}
MAY: dict[str, tuple[set[str], set[str]]] = {
    **{f"keys_{model}_{page}": (DESK, DESK) for model in OF_DESK for page in ("changelist", "add", "change")},
    **{f"keys_{model}_history": (DESK, DESK) for model in OF_DESK},
    **{f"keys_{model}_delete": (NONE, NONE) for model in (*OF_DESK, *READ_ONLY)},
    **{f"keys_{model}_changelist": (who, who) for model, who in READ_ONLY.items()},
    **{f"keys_{model}_history": (who, who) for model, who in READ_ONLY.items()},
    **{f"keys_{model}_change": (who, NONE) for model, who in READ_ONLY.items()},
    **{f"keys_{model}_add": (NONE, NONE) for model in READ_ONLY},
    "keys_modelalias_delete": (DESK, DESK),
    "keys_openrouterkey_rotation": (DESK, DESK),
    "keys_openrouterkey_import": (DESK, DESK),
    "keys_openrouterkey_import_preview": (DESK, DESK),
    "keys_client_replace": (DESK, DESK),
    "keys_usagehour_changelist": (READERS, READERS),
    "keys_usagehour_csv": (READERS, READERS),
    "keys_auditevent_csv": (READERS, READERS),
    **{
        f"auth_{model}_{page}": (ROOT, ROOT)
        for model in ("user", "group")
        for page in ("changelist", "add", "change", "history", "delete")
    },
    "auth_user_password_change": (ROOT, ROOT),
}
ACTIONS = {"keys_openrouterkey_do": "openrouterkey", "keys_client_do": "client"}  # each with its row actions
FOR_ALL_STAFF = {"index", "password_change", "password_change_done", "jsi18n", "time_zone"}
DJANGOS_OWN = {"login", "logout", "autocomplete", "view_on_site", "app_list"}


NAMELESS = {"<path:object_id>/", "(?P<url>.*)$"}  # Django's: an address of old, which redirects, and what is none
FOR_PROGRAMS = {"api/keys/stats", "api/usage", "healthz", "readyz"}  # no pages; tests of their own


def addresses(patterns: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Of all that the resolver knows: the whole route and its name, which may be empty."""
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from addresses(pattern.url_patterns, route)
        else:
            yield route, pattern.name or ""


def test_every_address_of_the_admin_is_in_the_table() -> None:
    found = list(addresses(admin.site.get_urls()))

    assert {name for _, name in found if name} == set(MAY) | set(ACTIONS) | FOR_ALL_STAFF | DJANGOS_OWN
    nameless = {route for route, name in found if not name}
    assert {route for route in nameless if not any(route.endswith(known) for known in NAMELESS)} == set()
    twice = {name for name, count in Counter(name for _, name in found if name).items() if count > 1}
    assert twice == set(), "of two addresses with one name the table can hold but one"


def test_nobody_opens_or_posts_to_anything_but_the_login(client: Client) -> None:
    """By the routes of the whole service, so that no name, and no table, can leave one out."""
    build_everything(1)
    wrong = {}
    for route, name in addresses(get_resolver().url_patterns):
        if route in FOR_PROGRAMS or name in ("login", "logout"):
            continue
        address = "/" + re.sub(r"<[^>]*>|\(\?P.*", str(uuid.uuid4()), route).replace("^", "").rstrip("$")
        for method in ("get", "post"):
            answer = getattr(client, method)(address)
            is_refused_or_none = answer.status_code in (301, 404, 405) or is_refused(answer, NOBODY)
            if not is_refused_or_none and route != "":
                wrong[f"{method} {address}"] = answer.status_code
    assert not wrong


def first_of(app: str, model: str) -> Any:
    return apps.get_model(app, model).objects.order_by("pk").values_list("pk", flat=True)[0]


def address_of(name: str, user: Any) -> str:
    app, model, page = name.split("_", 2)
    if name == "keys_openrouterkey_import_preview":
        actor = Actor("olivia", user_id=user.pk if user else first_of("auth", "user"))
        prepared = prepare_import(actor=actor, text=Sealed(secret_text(99)), source="x", name_pattern="p-{n}")
        return reverse(f"admin:{name}", args=[prepared.pk])
    needs_row = page in ("change", "history", "delete", "replace", "rotation", "password_change")
    return reverse(f"admin:{name}", args=[first_of(app, model)] if needs_row else [])


def action_addresses() -> Iterator[tuple[str, str]]:
    for name, model in ACTIONS.items():
        actions = admin.site.get_model_admin(apps.get_model("keys", model)).row_actions  # type: ignore[attr-defined]
        for action in actions:
            yield action.name, reverse(f"admin:{name}", args=[first_of("keys", model), action.name])


@pytest.fixture
def user_of(django_user_model: type[User], db: None) -> Any:
    def make(role: str | None) -> User | None:
        django_user_model.objects.create_user("somebody")
        if role is NOBODY:
            return None
        user = django_user_model.objects.create_user(
            str(role), is_staff=role != STRANGER, is_superuser=role == SUPERUSER
        )
        if role in (OPERATOR, AUDITOR):
            user.groups.set(Group.objects.filter(name=role))
        return user

    return make


def is_refused(answer: Any, role: str | None) -> bool:
    if role in (NOBODY, STRANGER):  # sent to the login
        return bool(answer.status_code == 302 and answer["Location"].startswith(reverse("admin:login")))
    return bool(answer.status_code == 403)


def is_answered(answer: Any) -> bool:
    to_login = answer.status_code == 302 and answer["Location"].startswith(reverse("admin:login"))
    return answer.status_code in (200, 302, 405) and not to_login


ROLES = [SUPERUSER, OPERATOR, AUDITOR, STAFF, STRANGER, NOBODY]
IDS = [str(role or "nobody") for role in ROLES]


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_each_role_opens_and_posts_to_what_it_may_and_nothing_else(
    client: Client, user_of: Any, no_openrouter: SandboxFixture, role: str, method: str
) -> None:
    build_everything(1)
    user = user_of(role)
    wrong = {}
    for name, (may_open, may_post) in MAY.items():
        if user is not None:
            client.force_login(user)
        answer = getattr(client, method)(address_of(name, user))
        may = role in (may_open if method == "get" else may_post)
        if not (is_answered(answer) if may else is_refused(answer, role)):
            wrong[name] = answer.status_code
    assert not wrong


@pytest.mark.parametrize("role", ROLES, ids=IDS)
def test_each_role_does_what_it_may_and_nothing_else(
    client: Client, user_of: Any, no_openrouter: SandboxFixture, role: str
) -> None:
    build_everything(1)
    user = user_of(role)
    if user is not None:
        client.force_login(user)
    events = AuditEvent.objects.count()
    answers = {name: client.post(url) for name, url in action_addresses()}
    answered = {name for name, answer in answers.items() if is_answered(answer)}
    refused = {name for name, answer in answers.items() if is_refused(answer, role)}
    assert set(answers) == {action.name for action in (*KEY_ACTIONS, *CLIENT_ACTIONS)}
    assert (answered if role in DESK else refused) == set(answers)
    assert (AuditEvent.objects.count() > events) == (role in DESK)


EVERY_ACTION = {action.name for action in (*KEY_ACTIONS, *CLIENT_ACTIONS)} | {"rotate", "delete_selected"}


def test_every_action_of_every_list_is_known(rf: Any, user_of: Any) -> None:
    request = rf.get("/admin/")
    request.user = user_of(SUPERUSER)
    offered = {name for model in admin.site._registry.values() for name in model.get_actions(request)}

    assert offered == EVERY_ACTION


@pytest.mark.parametrize("role", [AUDITOR, STAFF])
def test_no_action_of_a_list_is_for_who_may_only_read(client: Client, user_of: Any, role: str) -> None:
    build_everything(1)
    client.force_login(user_of(role))
    before = list(OpenRouterKey.objects.values())
    for name in sorted(name for name in MAY if name.startswith("keys_") and name.endswith("_changelist")):
        model = name.split("_")[1]
        row = str(first_of("keys", model)) if model != "usagehour" else "1"
        for action in EVERY_ACTION:
            chosen = {"action": action, "_selected_action": row, "post": "yes", "confirmed": "yes"}
            assert client.post(reverse(f"admin:{name}"), chosen).status_code in (200, 302, 403)
    assert list(OpenRouterKey.objects.values()) == before


@pytest.mark.parametrize("role", [SUPERUSER, OPERATOR, AUDITOR, STAFF])
def test_everybody_on_the_staff_has_a_home_and_a_password(client: Client, user_of: Any, role: str) -> None:
    build_everything(1)
    client.force_login(user_of(role))
    answers = {name: client.get(reverse(f"admin:{name}")).status_code for name in FOR_ALL_STAFF - {"time_zone"}}
    assert set(answers.values()) == {200}, answers


def test_an_auditor_sees_no_way_to_change_anything(client: Client, user_of: Any) -> None:
    build_everything(1)
    client.force_login(user_of(AUDITOR))
    for name in ("keys_auditevent_change", "keys_requestlog_change"):
        page = client.get(address_of(name, None)).content.decode()
        assert "row-actions" not in page
        assert 'name="_save"' not in page


@pytest.mark.parametrize("role", [OPERATOR, AUDITOR])
def test_no_link_of_a_page_leads_to_one_that_is_closed(client: Client, user_of: Any, role: str) -> None:
    build_everything(1)
    user = user_of(role)
    client.force_login(user)
    links: set[str] = set()
    for name in [name for name, (may_open, _) in MAY.items() if role in may_open and not name.endswith("_csv")]:
        page = client.get(address_of(name, user)).content.decode()
        links |= set(re.findall(r'href="(/admin/keys/[^"?#]*)', page))
    links |= set(re.findall(r'href="(/admin/keys/[^"?#]*)', client.get(reverse("admin:index")).content.decode()))
    refused = {link for link in links if client.get(link).status_code == 403}
    assert len(links) > 3
    assert not refused


@pytest.mark.parametrize("role", [OPERATOR, AUDITOR])
def test_no_page_of_a_role_shows_a_secret(client: Client, user_of: Any, role: str) -> None:
    build_everything(1)
    user = user_of(role)
    client.force_login(user)
    sealed = bytes(OpenRouterKey.objects.values_list("secret", flat=True)[0]).hex()
    for name, (may_open, _) in MAY.items():
        if role in may_open:
            answer: Any = client.get(address_of(name, user))
            content = b"".join(answer.streaming_content) if answer.streaming else answer.content
            assert b"sk-or-v1-test-planted" not in content, name
            assert sealed not in content.decode(), name
    KeyImport.objects.all().delete()


def test_the_roles_hold_what_the_table_says() -> None:
    def codes(role: str) -> set[str]:
        found = Group.objects.get(name=role).permissions.filter(content_type__app_label="keys")
        return set(found.values_list("codename", flat=True))

    assert codes(AUDITOR) == {f"view_{model}" for model in ("requestlog", "attempt", "usagehour", "auditevent")}
    changes = {f"{verb}_{model}" for model in OF_DESK for verb in ("add", "change")} | {"delete_modelalias"}
    views = {f"view_{model}" for model in (*OF_DESK, "cooldown", "requestlog", "attempt", "usagehour", "auditevent")}
    assert codes(OPERATOR) == changes | views
