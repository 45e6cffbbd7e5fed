"""The first person who may log in to the admin."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.contrib.auth import get_user_model
from django.db import transaction

from keys.services.audit import COMMAND_LINE, record
from opensvm.serve.errors import StartError

DEFAULT_NAME = "admin"
PASSWORD_BYTES = 15


@dataclass(frozen=True, slots=True)
class AdminUser:
    """A user that was just made. Without a password here the operator has set it, or it is in the file."""

    name: str
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None


def ensure_admin_user(variables: Mapping[str, str], *, password_file: Path | None) -> AdminUser | None:
    """Make the user that the environment names, or a first one; None if there is nothing to make.

    A generated password goes to `password_file`, or, without one, back to the caller, who shows it once.
    """
    name = variables.get("DJANGO_SUPERUSER_USERNAME", "").strip()
    given = variables.get("DJANGO_SUPERUSER_PASSWORD", "")
    if not _is_wanted(name, given):
        return None
    name = name or DEFAULT_NAME
    password = given or secrets.token_urlsafe(PASSWORD_BYTES)
    if password_file is not None and not given:
        _write_private(password_file, password)  # first: a user whose password nobody knows can't log in
    _create(name, password, variables.get("DJANGO_SUPERUSER_EMAIL", ""))
    if given:
        return AdminUser(name)
    return AdminUser(name, password_file=password_file) if password_file else AdminUser(name, password=password)


def _is_wanted(name: str, given: str) -> bool:
    users = get_user_model()._default_manager.all()
    if users.filter(username=name or DEFAULT_NAME).exists():
        return False
    return bool(name or given) or not users.filter(is_superuser=True).exists()


def _create(name: str, password: str, email: str) -> None:
    users = get_user_model()
    user = users(username=name, email=email, is_staff=True, is_superuser=True)
    user.set_password(password)
    with transaction.atomic():
        user.save(force_insert=True)
        record(COMMAND_LINE, "user.created", user, after={"username": name, "is_superuser": True})


def _write_private(path: Path, password: str) -> None:
    """A new file each time, so that nobody who had the old one open reads the new password."""
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StartError(f"The admin password can't be written to {path} ({exc.strerror}).") from exc
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{password}\n")
