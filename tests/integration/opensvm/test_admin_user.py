"""The first admin user: when it is made, and where its password goes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model

from keys.models import AuditEvent
from opensvm.serve.admin_user import ensure_admin_user

pytestmark = pytest.mark.django_db

ALICE = {"DJANGO_SUPERUSER_USERNAME": "alice", "DJANGO_SUPERUSER_PASSWORD": "test-password-1"}


def test_the_first_start_makes_admin_with_a_password_to_show() -> None:
    made = ensure_admin_user({}, password_file=None)
    assert made is not None
    assert made.name == "admin"
    assert authenticate(username="admin", password=made.password)


def test_without_a_terminal_the_password_is_only_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "admin-password"
    path.write_text("an older one")
    path.chmod(0o644)
    made = ensure_admin_user({}, password_file=path)
    assert made is not None
    assert made.password is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert authenticate(username="admin", password=path.read_text().strip())


def test_the_environments_user_gets_the_environments_password(tmp_path: Path) -> None:
    made = ensure_admin_user(ALICE, password_file=tmp_path / "admin-password")
    assert made is not None
    assert (made.name, made.password, made.password_file) == ("alice", None, None)
    assert authenticate(username="alice", password="test-password-1")
    assert not (tmp_path / "admin-password").exists()


def test_a_user_that_is_there_is_left_alone() -> None:
    get_user_model().objects.create_user("alice", password="test-own-password")
    assert ensure_admin_user(ALICE, password_file=None) is None
    assert authenticate(username="alice", password="test-own-password")


def test_the_environments_user_is_made_beside_others() -> None:
    get_user_model().objects.create_superuser("admin", password="test-other")
    made = ensure_admin_user(ALICE, password_file=None)
    assert made is not None
    assert made.name == "alice"


def test_no_user_is_made_while_there_is_a_superuser() -> None:
    get_user_model().objects.create_superuser("bob", password="test-other")
    assert ensure_admin_user({}, password_file=None) is None


def test_a_name_alone_gets_a_password_to_show() -> None:
    made = ensure_admin_user({"DJANGO_SUPERUSER_USERNAME": "charlie"}, password_file=None)
    assert made is not None
    assert made.password is not None
    assert authenticate(username="charlie", password=made.password)


def test_making_a_user_is_audited_without_its_password() -> None:
    ensure_admin_user(ALICE, password_file=None)
    event = AuditEvent.objects.get(action="user.created")
    assert event.object_name == "alice"
    assert "test-password-1" not in str(event.after)
