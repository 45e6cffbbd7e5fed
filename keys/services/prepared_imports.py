"""Imports that are shown before they are carried out. Called by the admin.

Between the two steps the pasted text lies sealed in the database for at most a quarter of an hour, readable for the one
who pasted it. The page, the session and the messages hold its id alone.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid

from django.db import transaction
from django.utils import timezone

from keys.errors import ImportGone, InvalidField
from keys.models import Account, KeyImport
from keys.sealing import Sealed, get_vault
from keys.services.audit import Actor, record
from keys.services.fields import clean_name
from keys.services.key_imports import (
    ImportReport,
    KeyEntry,
    PlannedEntry,
    check_pattern,
    import_entries,
    plan_entries,
    read_entries,
)

logger = logging.getLogger("opensvm.keys")

LIFETIME = dt.timedelta(minutes=15)
MOST_ENTRIES = 1000  # of one import in the admin; `import_keys` takes any number
_TABLE, _COLUMN = "keys_keyimport", "secret"


def prepare_import(
    *, actor: Actor, text: Sealed, source: str, name_pattern: str, account: Account | None = None
) -> KeyImport:
    """Keep the text, sealed, until it is confirmed. Raises InvalidField: nothing to import, too much, a bad pattern."""
    check_pattern(name_pattern)
    count = len(read_entries(text.reveal(), source))
    if not count:
        raise InvalidField("text", "There is no key in it: paste some, separated by line breaks or commas.")
    if count > MOST_ENTRIES:
        raise InvalidField("text", f"These are {count:,} entries, at most {MOST_ENTRIES:,} at a time: use import_keys.")
    if actor.user_id is None:
        raise InvalidField("text", "Only a person may prepare an import: use import_keys.")
    drop_old_imports(timezone.now())
    prepared = KeyImport(
        created_by_id=actor.user_id,
        name_pattern=name_pattern,
        account=account,
        source=clean_name(source, field="file"),
    )
    prepared.secret = get_vault().seal(text, table=_TABLE, column=_COLUMN, row=prepared.pk)
    prepared.save(force_insert=True)
    return prepared


def plan_import(import_id: uuid.UUID, *, actor: Actor) -> tuple[KeyImport, list[PlannedEntry]]:
    """What carrying it out now would do. Raises ImportGone."""
    prepared = _get_own(import_id, actor)
    return prepared, plan_entries(_open(prepared), prepared.name_pattern)


def carry_out_import(import_id: uuid.UUID, *, actor: Actor) -> ImportReport:
    """Import it, once: whoever takes it first. Raises ImportGone."""
    with transaction.atomic():
        prepared = _get_own(import_id, actor)
        entries = _open(prepared)
        _take(prepared)
        record(actor, "import.confirmed", prepared, after={"entries": len(entries), "pattern": prepared.name_pattern})
    return import_entries(entries, actor=actor, name_pattern=prepared.name_pattern, account=prepared.account)


def give_up_import(import_id: uuid.UUID, *, actor: Actor) -> None:
    """Forget it. Raises ImportGone."""
    with transaction.atomic():
        _take(_get_own(import_id, actor))


def drop_old_imports(now: dt.datetime) -> int:
    """Forget what nobody confirmed in time; how many. A task calls it too."""
    dropped, _ = KeyImport.objects.filter(created_at__lte=now - LIFETIME).delete()
    if dropped:
        logger.info("dropped imports that nobody confirmed", extra={"event": "import.dropped", "count": dropped})
    return dropped


def _get_own(import_id: uuid.UUID, actor: Actor) -> KeyImport:
    fresh = KeyImport.objects.filter(created_at__gt=timezone.now() - LIFETIME).select_related("account")
    prepared = fresh.filter(pk=import_id, created_by_id=actor.user_id).first()
    if prepared is None:
        raise ImportGone
    return prepared


def _open(prepared: KeyImport) -> list[KeyEntry]:
    text = get_vault().unseal(prepared.secret, table=_TABLE, column=_COLUMN, row=prepared.pk)
    return read_entries(text.reveal(), prepared.source)


def _take(prepared: KeyImport) -> None:
    deleted, _ = KeyImport.objects.filter(pk=prepared.pk).delete()
    if not deleted:
        raise ImportGone
