"""What happens once before the processes start, one start at a time: migrate, keyring, environment keys, admin user."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from django.utils import timezone

from keys.models import Client, KeyState, OpenRouterKey
from keys.services.environment_keys import import_environment_keys
from keys.services.key_imports import ImportReport
from keys.services.master_keys import ensure_keyring, verify_keyring
from opensvm.serve.admin_user import AdminUser, ensure_admin_user
from opensvm.serve.errors import StartError

logger = logging.getLogger("opensvm.serve")

ADVISORY_LOCK = 0x6F70656E73766D  # "opensvm": one start at a time over all machines of a PostgreSQL


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the steps found and made."""

    active_keys: int
    clients: int
    imported: ImportReport
    admin_user: AdminUser | None  # None: there was one


def prepare(variables: Mapping[str, str], *, on_terminal: bool) -> Prepared:
    """Make the database, the keyring and the admin user ready. Raises StartError, KeyringError or KeysError."""
    var_dir = Path(settings.OPENSVM_VAR_DIR)
    _check_log_file(Path(settings.OPENSVM_LOG_FILE))
    with _one_start_at_a_time(var_dir):
        call_command("migrate", interactive=False, verbosity=0)
        ensure_keyring(settings.OPENSVM_KEYRING)
        verify_keyring()
        imported = import_environment_keys(variables)
        admin_user = ensure_admin_user(variables, password_file=None if on_terminal else var_dir / "admin-password")
        prepared = Prepared(count_active_keys(), count_usable_clients(), imported, admin_user)
    connections.close_all()  # the processes that are forked from here open their own
    return prepared


def _check_log_file(path: Path) -> None:
    """The log never stops a request, so only the start can say that there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as exc:
        raise StartError(f"OPENSVM_LOG_FILE: {path} can't be written ({exc.strerror}).") from exc


def count_active_keys() -> int:
    return OpenRouterKey.objects.filter(state=KeyState.ACTIVE).count()


def count_usable_clients() -> int:
    usable = Client.objects.filter(revoked_at=None).exclude(expires_at__lte=timezone.now())
    return usable.count()


@contextmanager
def _one_start_at_a_time(var_dir: Path) -> Iterator[None]:
    try:
        var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (var_dir / "serve.lock").open("a")
    except OSError as exc:
        raise StartError(
            f"{var_dir} can't be written ({exc.strerror}): make it writable for this user or set OPENSVM_VAR_DIR."
        ) from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _database_lock():
            yield


@contextmanager
def _database_lock() -> Iterator[None]:
    """Other machines share the database and not our folder. SQLite is on this machine, where the file lock holds."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
