"""Users and groups: what each may do is in the audit trail with who decided it. No password is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse

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
        ("user.edited", "olivia"),
        ("user.deleted", "olivia"),
    ]
    edited = AuditEvent.objects.filter(action="user.edited").order_by("id")[0]
    assert (edited.after["groups"], edited.after["is_staff"], edited.after["is_superuser"]) == (
        ["Auditors"],
        True,
        False,
    )
    assert PASSWORD not in str(list(AuditEvent.objects.values()))


def test_the_rights_of_a_group_are_in_the_audit(desk: Client) -> None:
    auditors = Group.objects.get(name="Auditors")
    desk.post(reverse("admin:auth_group_change", args=[auditors.pk]), {"name": "Auditors", "permissions": []})

    event = AuditEvent.objects.get(action="group.edited")
    assert (event.object_name, event.after["permissions"]) == ("Auditors", [])


def test_several_users_deleted_at_once_are_in_the_audit(desk: Client) -> None:
    users = [User.objects.create_user(name) for name in ("ada", "bob")]
    chosen = {"action": "delete_selected", "_selected_action": [str(user.pk) for user in users], "post": "yes"}

    desk.post(reverse("admin:auth_user_changelist"), chosen)

    assert events() == [("user.deleted", "olivia")] * 2
