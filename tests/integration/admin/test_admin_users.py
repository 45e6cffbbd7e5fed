"""Users and groups: what each may do is in the audit trail with who decided it. No password is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import Group, User
from django.db import OperationalError, connection
from django.urls import reverse
from pytest_django import Settings

from keys.models import AuditEvent
from tests.integration.admin.test_admin_keys import text_of

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.django_db

PASSWORD = "a long planted password 7"


def events() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.order_by("id").values_list("action", "actor"))


def edit(desk: Client, user: User, **values: object) -> None:
    typed = {"username": user.username, "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00", "is_active": "on"}
    answer = desk.post(reverse("admin:auth_user_change", args=[user.pk]), {**typed, **values}, follow=True)
    assert "changed successfully" in text_of(answer)


def test_a_user_is_created_given_a_role_and_a_password_and_deleted(desk: Client) -> None:
    typed = {"username": "ada", "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    desk.post(reverse("admin:auth_user_add"), typed)
    ada = User.objects.get(username="ada")
    auditors = Group.objects.get(name="Auditors")

    edit(desk, ada, is_staff="on", groups=str(auditors.pk))
    again = {"password1": PASSWORD + "8", "password2": PASSWORD + "8", "usable_password": "true"}
    desk.post(reverse("admin:auth_user_password_change", args=[ada.pk]), again)
    desk.post(reverse("admin:auth_user_delete", args=[ada.pk]), {"post": "yes"})

    assert not User.objects.filter(username="ada").exists()
    assert events() == [
        ("user.created", "olivia"),
        ("user.edited", "olivia"),
        ("user.password_changed", "olivia"),
        ("user.deleted", "olivia"),
    ]
    edited = AuditEvent.objects.get(action="user.edited")
    assert edited.before == {"is_staff": False, "groups": []}
    assert edited.after == {"is_staff": True, "groups": ["Auditors"]}
    assert PASSWORD not in str(list(AuditEvent.objects.values()))


def test_the_rights_of_a_group_are_in_the_audit(desk: Client) -> None:
    auditors = Group.objects.get(name="Auditors")
    desk.post(reverse("admin:auth_group_change", args=[auditors.pk]), {"name": "Auditors", "permissions": []})

    event = AuditEvent.objects.get(action="group.edited")
    assert (event.object_name, event.after) == ("Auditors", {"permissions": []})
    assert "view_auditevent" in event.before["permissions"]


def test_several_users_deleted_at_once_are_in_the_audit(desk: Client) -> None:
    users = [User.objects.create_user(name) for name in ("ada", "bob")]
    chosen = {"action": "delete_selected", "_selected_action": [str(user.pk) for user in users], "post": "yes"}

    desk.post(reverse("admin:auth_user_changelist"), chosen)

    assert events() == [("user.deleted", "olivia")] * 2


def test_a_form_that_changes_nothing_leaves_nothing_in_the_audit(desk: Client) -> None:
    auditors = Group.objects.get(name="Auditors")
    rights = [str(pk) for pk in auditors.permissions.values_list("pk", flat=True)]

    desk.post(reverse("admin:auth_group_change", args=[auditors.pk]), {"name": "Auditors", "permissions": rights})

    assert events() == []


def test_a_login_is_in_the_audit_and_a_refused_one_in_the_log_alone(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    User.objects.create_user("ada", password=PASSWORD, is_staff=True)
    caplog.set_level("INFO", "opensvm.admin")
    login = reverse("admin:login")

    client.post(login, {"username": "ada", "password": "wrong"})
    assert events() == []
    client.post(login, {"username": "ada", "password": PASSWORD}, REMOTE_ADDR="192.0.2.9")

    event = AuditEvent.objects.get()
    assert (event.action, event.actor, event.object_name, event.ip) == ("user.logged_in", "ada", "ada", "192.0.2.9")
    said = [record.event for record in caplog.records if record.name == "opensvm.admin"]  # type: ignore[attr-defined]
    assert said == ["admin.login_refused", "admin.logged_in"]
    assert "ada" not in caplog.records[0].getMessage()  # what is typed there may be a password


def test_nobody_is_let_in_whose_login_can_not_be_recorded(client: Client) -> None:
    User.objects.create_user("ada", password=PASSWORD, is_staff=True)

    def refuse_the_audit(execute: Any, sql: str, *rest: Any) -> Any:
        if "keys_auditevent" in sql:
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, *rest)

    with connection.execute_wrapper(refuse_the_audit):
        answer = client.post(reverse("admin:login"), {"username": "ada", "password": PASSWORD})

    assert answer.status_code == 503
    assert client.get(reverse("admin:index")).status_code == 302


def test_ones_own_password_is_changed_with_the_old_one_and_audited(client: Client) -> None:
    ada = User.objects.create_user("ada", password=PASSWORD, is_staff=True)
    client.force_login(ada)
    again = PASSWORD + "8"
    typed = {"old_password": "wrong", "new_password1": again, "new_password2": again}

    client.post(reverse("admin:password_change"), typed)
    assert events() == []
    client.post(reverse("admin:password_change"), {**typed, "old_password": PASSWORD})

    ada.refresh_from_db()
    assert ada.check_password(again)
    assert events() == [("user.password_changed", "ada")]
    assert client.get(reverse("admin:index")).status_code == 200  # still logged in


class WatchedHasher(PBKDF2PasswordHasher):
    """Fails inside a transaction of the page; the test's own has no savepoint."""

    algorithm = "watched"
    iterations = 1

    def encode(self, password: str, salt: str | bytes, iterations: int | None = None) -> str:
        assert connection.savepoint_ids == [], "a transaction is open: on SQLite all requests wait for its end"
        return super().encode(password, salt, iterations)  # type: ignore[arg-type]


def test_no_password_is_hashed_inside_a_transaction(desk: Client, operator: User, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.WatchedHasher"]
    operator.set_password(PASSWORD)
    operator.save()
    desk.force_login(operator)
    two = {"password1": PASSWORD + "8", "password2": PASSWORD + "8", "usable_password": "true"}
    own = {"old_password": PASSWORD, "new_password1": PASSWORD + "9", "new_password2": PASSWORD + "9"}

    desk.post(reverse("admin:auth_user_add"), {"username": "ada", **two})
    ada = User.objects.get(username="ada")
    desk.post(reverse("admin:auth_user_password_change", args=[ada.pk]), two)
    desk.post(reverse("admin:password_change"), own)

    operator.refresh_from_db()
    assert operator.check_password(PASSWORD + "9")
    assert [action for action, _ in events()] == ["user.created", "user.password_changed", "user.password_changed"]
