"""Adds, edits, disables, enables and retires OpenRouter keys. Called by the admin, the import and the commands."""

from __future__ import annotations

import datetime as dt
import logging
import uuid

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from keys.errors import DuplicateKey, DuplicateName, IllegalStateChange, NotFound
from keys.key_states import KeyAction, outcome_of
from keys.key_text import parse_key_text, tail_of
from keys.models import Account, KeyState, OpenRouterKey
from keys.sealing import KEY_COLUMN, KEY_TABLE, Sealed, get_vault
from keys.services.audit import Actor, changes, record
from keys.services.fields import clean_name, clean_text, clean_tier

logger = logging.getLogger("opensvm.keys")

ROTATE_AFTER = dt.timedelta(days=90)


def add_key(
    *,
    actor: Actor,
    secret: Sealed,
    name: str,
    account: Account | None = None,
    tier: int = 1,
    note: str = "",
    from_environment: bool = False,
    state: KeyState = KeyState.ACTIVE,
) -> OpenRouterKey:
    """Seal and store a key; it is active at once, but for a rotation's successor, which is pending.

    Raises InvalidField, DuplicateKey or DuplicateName.
    """
    key = _new_key(secret, clean_name(name))
    key.tier = clean_tier(tier)
    key.account = account
    key.note = clean_text(note, field="note")
    key.from_environment = from_environment
    key.created_by_id = actor.user_id
    key.state = state
    try:
        with transaction.atomic():
            _refuse_duplicate(key)
            key.save(force_insert=True)
            record(actor, "key.added", key, after={"name": key.name, "account": account, "tier": key.tier})
    except IntegrityError:  # someone else was faster by a moment
        _refuse_duplicate(key)
        raise
    logger.info("added key", extra={"event": "key.added", "key": key.tail, "key_name": key.name, "actor": actor.name})
    return key


def edit_key(
    key_id: uuid.UUID, *, actor: Actor, name: str, account: Account | None, tier: int, note: str
) -> OpenRouterKey:
    """Change what an operator may change. Raises InvalidField, DuplicateName or NotFound."""
    wanted: dict[str, object] = {
        "name": clean_name(name),
        "account_id": account.pk if account else None,
        "tier": clean_tier(tier),
        "note": clean_text(note, field="note"),
    }
    try:
        with transaction.atomic():
            key = get_locked_key(key_id)
            before, after = changes({field: getattr(key, field) for field in wanted}, wanted)
            if after:
                _update(key, after)
                record(actor, "key.edited", key, before=before, after=after)
    except IntegrityError as exc:
        raise DuplicateName("a key", str(wanted["name"])) from exc
    return key


def disable_key(key_id: uuid.UUID, *, actor: Actor) -> OpenRouterKey:
    """Take a key out of the pool; requests that use it already finish. Raises IllegalStateChange or NotFound."""
    return _change_state(key_id, KeyAction.DISABLE, actor)


def enable_key(key_id: uuid.UUID, *, actor: Actor) -> OpenRouterKey:
    """Put a disabled or invalid key back into the pool. Raises IllegalStateChange or NotFound."""
    return _change_state(key_id, KeyAction.ENABLE, actor)


def retire_key(key_id: uuid.UUID, *, actor: Actor) -> OpenRouterKey:
    """Erase the secret and keep the rest for ever. Raises IllegalStateChange or NotFound.

    A rotation whose successor it was is over: the old key serves again.
    """
    with transaction.atomic():
        replaced = Q(replaced_by=key_id) & ~Q(state=KeyState.RETIRED)
        locked = {key.pk: key for key in lock_keys(Q(pk=key_id) | replaced)}
        key = locked.pop(key_id, None)
        if key is None:
            raise NotFound("key", key_id)
        for old in locked.values():
            release(old, actor=actor)
        apply_action(key, KeyAction.RETIRE, actor=actor, now=timezone.now())
    return key


def release(old: OpenRouterKey, *, actor: Actor) -> None:
    """End the open rotation of a key that the caller holds locked; it serves again if it was draining."""
    if old.state == KeyState.DRAINING:
        apply_action(old, KeyAction.RESUME, actor=actor, now=timezone.now())
    record(actor, "key.rotation_cancelled", old, before={"successor": old.replaced_by})
    _update(old, {"replaced_by_id": None})


def lock_keys(condition: Q) -> list[OpenRouterKey]:
    """The keys that match, locked in the order in which everybody locks several: by id."""
    return list(OpenRouterKey.objects.select_for_update(no_key=True).filter(condition).order_by("pk"))


def get_locked_key(key_id: uuid.UUID) -> OpenRouterKey:
    """The key, locked until the caller's transaction ends; NotFound if there is none."""
    key = OpenRouterKey.objects.select_for_update(no_key=True).filter(pk=key_id).first()
    if key is None:
        raise NotFound("key", key_id)
    return key


def apply_action(key: OpenRouterKey, action: KeyAction, *, actor: Actor, now: dt.datetime) -> None:
    """Change the state of a key that the caller holds locked, with its audit row. Raises IllegalStateChange."""
    old = key.state
    new = outcome_of(action, old)
    if new is None:
        raise IllegalStateChange(key, old, action.value)
    values: dict[str, object] = {"state": new, "invalid_since": now if new is KeyState.INVALID else None}
    if new is KeyState.RETIRED:
        values["secret"] = b""
    if not OpenRouterKey.objects.filter(pk=key.pk, state=old).update(**values):
        raise IllegalStateChange(key, "being changed by someone else", action.value)
    for field, value in values.items():
        setattr(key, field, value)
    record(actor, f"key.{action.value}", key, before={"state": old}, after={"state": new.value})
    extra = {"event": f"key.{action.value}", "key": key.tail, "key_name": key.name, "state": new.value}
    logger.info("changed key state", extra={**extra, "actor": actor.name})


def _change_state(key_id: uuid.UUID, action: KeyAction, actor: Actor) -> OpenRouterKey:
    with transaction.atomic():
        key = get_locked_key(key_id)
        apply_action(key, action, actor=actor, now=timezone.now())
    return key


def _new_key(secret: Sealed, name: str) -> OpenRouterKey:
    text = parse_key_text(secret.reveal())
    vault = get_vault()
    key_id = uuid.uuid4()
    now = timezone.now()
    return OpenRouterKey(
        id=key_id,
        name=name,
        secret=vault.seal(Sealed(text), table=KEY_TABLE, column=KEY_COLUMN, row=key_id),
        tail=tail_of(text),
        fingerprint=vault.fingerprint(text),
        created_at=now,
        rotates_at=now + ROTATE_AFTER,
    )


def _refuse_duplicate(key: OpenRouterKey) -> None:
    known = OpenRouterKey.objects.filter(fingerprint=key.fingerprint).first()
    if known is not None:
        raise DuplicateKey(known.name, known.pk, known.state)
    if OpenRouterKey.objects.filter(name=key.name).exists():
        raise DuplicateName("a key", key.name)


def _update(key: OpenRouterKey, values: dict[str, object]) -> None:
    OpenRouterKey.objects.filter(pk=key.pk).update(**values)
    for field, value in values.items():
        setattr(key, field, value)
