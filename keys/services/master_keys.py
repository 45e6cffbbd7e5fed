"""Keeps keyring and database together: registers master keys, adds them, and moves every secret to the newest.

The database names each master key that may have sealed something in it, with a check value. A machine whose keyring
lacks one, or has another key under its id, must not serve: it would answer with secrets that it can't open.
"""

from __future__ import annotations

import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction

from keys.errors import MasterKeyMismatch
from keys.keyring import Keyring, add_master_key_to_file, create_keyring, read_keyring
from keys.models import MasterKey, OpenRouterKey
from keys.sealing import KEY_COLUMN, KEY_TABLE, Undecryptable, Vault, get_vault
from keys.services.audit import COMMAND_LINE, Actor, record

logger = logging.getLogger("opensvm.keys")

REWRAP_BATCH = 100


@dataclass(frozen=True, slots=True)
class RewrapReport:
    """`unopened`: the rows whose secret can't be opened, each with the reason."""

    key_id: str
    rewrapped: int
    unopened: tuple[str, ...]


def ensure_keyring(path: str | os.PathLike[str]) -> Keyring:
    """The keyring at `path`, made if this database has no master key yet. Raises KeyringError or MasterKeyMismatch."""
    if Path(path).exists():
        return read_keyring(path)
    registered = MasterKey.objects.order_by("-active", "key_id").first()
    if registered is None:
        return create_keyring(path)
    raise MasterKeyMismatch(
        f"The keyring {path} is missing, but this database is sealed with master key {registered.key_id}: restore the "
        "keyring from your backup, or set OPENSVM_KEYRING to where it is."
    )


def verify_keyring(*, actor: Actor = COMMAND_LINE) -> Keyring:
    """Make sure that the keyring opens this database. Raises KeyringError, or MasterKeyMismatch naming the key id.

    A database without master keys takes the keyring's. A keyring that is ahead, because `add_master_key` was
    interrupted, is registered; any other difference is an error.
    """
    keyring = read_keyring(settings.OPENSVM_KEYRING)
    try:
        _verify(keyring, actor)
    except IntegrityError:  # another machine registered its own at the same moment
        _verify(keyring, actor)
    return keyring


def add_master_key(*, actor: Actor) -> str:
    """Add a master key to the keyring file, register and activate it; its id. Raises as `verify_keyring` does."""
    verify_keyring(actor=actor)
    keyring = add_master_key_to_file(settings.OPENSVM_KEYRING)
    _verify(keyring, actor)
    return keyring.active_id


def rewrap_secrets(*, actor: Actor, batch: int = REWRAP_BATCH) -> RewrapReport:
    """Seal every secret with the newest master key, in short transactions; may be interrupted and run again."""
    verify_keyring(actor=actor)
    vault = get_vault()
    rewrapped, unopened, last = 0, [], uuid.UUID(int=0)
    while True:
        with transaction.atomic():
            keys = _lock_next(last, batch)
            for key in keys:
                try:
                    rewrapped += _rewrap(key, vault)
                except Undecryptable as exc:
                    unopened.append(f"{key}: {exc}")
        if not keys:
            break
        last = keys[-1].pk
    report = RewrapReport(vault.keyring.active_id, rewrapped, tuple(unopened))
    _record_rewrap(report, actor)
    return report


def _verify(keyring: Keyring, actor: Actor) -> None:
    vault = Vault(keyring)
    registered = list(MasterKey.objects.order_by("created_at", "key_id"))
    for row in registered:
        _verify_row(row, vault)
    active = next((row.key_id for row in registered if row.active), None)
    if active != keyring.active_id or len(registered) < len(keyring.ids):
        _register(vault, actor)


def _verify_row(row: MasterKey, vault: Vault) -> None:
    path = settings.OPENSVM_KEYRING
    if row.key_id not in vault.keyring.ids:
        raise MasterKeyMismatch(
            f"The keyring {path} lacks master key {row.key_id}, with which this database is sealed: restore the newest "
            "copy of the keyring, or set OPENSVM_KEYRING to where it is."
        )
    if vault.check_value(row.key_id) != row.check_value:
        raise MasterKeyMismatch(
            f"The keyring {path} holds another key under the id {row.key_id} than the one that sealed this database: "
            "restore the right keyring from your backup."
        )


def _register(vault: Vault, actor: Actor) -> None:
    """Register what the keyring holds and make its newest key the active one."""
    newest = vault.keyring.active_id
    with transaction.atomic():
        known = {row.key_id for row in MasterKey.objects.select_for_update(no_key=True).order_by("key_id")}
        MasterKey.objects.filter(active=True).exclude(key_id=newest).update(active=False)
        for key_id in vault.keyring.ids:
            if key_id not in known:
                row = MasterKey(key_id=key_id, check_value=vault.check_value(key_id), active=key_id == newest)
                row.save(force_insert=True)
                record(actor, "master_key.registered", row)
        MasterKey.objects.filter(key_id=newest, active=False).update(active=True)
    logger.info("activated master key", extra={"event": "master_key.activated", "master_key": newest})


def _lock_next(last: uuid.UUID, batch: int) -> list[OpenRouterKey]:
    rows = OpenRouterKey.objects.select_for_update(no_key=True).filter(pk__gt=last).exclude(secret=b"")
    return list(rows.order_by("pk")[:batch])


def _rewrap(key: OpenRouterKey, vault: Vault) -> int:
    """1 if the secret was sealed anew; 0 if there was no need, or if someone has just changed it."""
    old = bytes(key.secret)
    if vault.key_id_of(old) == vault.keyring.active_id:
        return 0
    secret = vault.unseal(old, table=KEY_TABLE, column=KEY_COLUMN, row=key.pk)
    new = vault.seal(secret, table=KEY_TABLE, column=KEY_COLUMN, row=key.pk)
    return OpenRouterKey.objects.filter(pk=key.pk, secret=old).update(secret=new)


def _record_rewrap(report: RewrapReport, actor: Actor) -> None:
    with transaction.atomic():
        row = MasterKey.objects.get(key_id=report.key_id)
        facts = {"rewrapped": report.rewrapped, "unopened": len(report.unopened)}
        record(actor, "master_key.secrets_rewrapped", row, after=facts)
    extra = {"event": "master_key.secrets_rewrapped", "master_key": report.key_id, "rewrapped": report.rewrapped}
    logger.info("rewrapped secrets", extra=extra)
