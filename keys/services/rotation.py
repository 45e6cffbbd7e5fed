"""Replaces an OpenRouter key by a successor without a moment in which neither serves. Called by the admin, the
commands and a task.

    start   the successor is stored, pending, and linked by `replaced_by`; account and tier carry on
    check   `checks.check_key`: once OpenRouter accepts it the successor is active, and both serve
    drain   the old key gets no new requests; its open ones finish
    finish  it is retired, when nothing of it is in flight

Until it is retired the rotation can be cancelled. Several keys are locked by id, as admission locks them, so that
after `drain` no request that saw the key active can begin.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from keys.errors import IllegalStateChange, KeysError, NotFound, RotationRefused
from keys.key_states import KeyAction, allows
from keys.models import InFlight, KeyState, OpenRouterKey
from keys.sealing import Sealed
from keys.services.audit import TASK, Actor, record
from keys.services.keys import add_key, apply_action, get_locked_key, lock_keys, release

logger = logging.getLogger("opensvm.keys")

ROTATABLE = (KeyState.ACTIVE, KeyState.DISABLED, KeyState.INVALID)
LONGEST_NAME = 100


class RotationPhase(StrEnum):
    CHECKING = "checking"  # the successor waits for a good check
    OVERLAP = "overlap"  # both may serve
    DRAINING = "draining"  # the old key finishes its open requests
    FINISHED = "finished"  # the old key is retired


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation. `in_flight`: how many requests the old key still answers."""

    old: OpenRouterKey
    new: OpenRouterKey
    in_flight: int

    @property
    def phase(self) -> RotationPhase:
        if self.old.state == KeyState.RETIRED:
            return RotationPhase.FINISHED
        if self.new.state == KeyState.PENDING:
            return RotationPhase.CHECKING
        return RotationPhase.DRAINING if self.old.state == KeyState.DRAINING else RotationPhase.OVERLAP

    @property
    def is_successor_serving(self) -> bool:
        return self.new.state == KeyState.ACTIVE


def find_rotation(key_id: uuid.UUID) -> Rotation | None:
    """The open rotation in which the key is the old one or the successor. At most three queries."""
    takes_part = Q(pk=key_id, replaced_by__isnull=False) | Q(replaced_by=key_id)
    rows = OpenRouterKey.objects.filter(takes_part).exclude(state=KeyState.RETIRED).defer("secret")
    old = rows.select_related("replaced_by__account").defer("secret", "replaced_by__secret").first()
    if old is None or old.replaced_by is None:
        return None
    return Rotation(old, old.replaced_by, open_requests_of(old.pk))


def find_finished_rotation(key_id: uuid.UUID) -> Rotation | None:
    """The rotation that retired the key. One query."""
    keys = OpenRouterKey.objects.select_related("replaced_by").defer("secret", "replaced_by__secret")
    old = keys.filter(pk=key_id, state=KeyState.RETIRED).first()
    return None if old is None or old.replaced_by is None else Rotation(old, old.replaced_by, 0)


def find_predecessor(key_id: uuid.UUID) -> OpenRouterKey | None:
    """The key that this one took the place of, or is about to."""
    return OpenRouterKey.objects.filter(replaced_by=key_id).defer("secret").first()


def count_in_flight(key_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    """How many requests each of the keys answers now; without those that answer none."""
    rows = InFlight.objects.filter(key__in=list(key_ids)).order_by().values("key_id").annotate(count=Count("id"))
    return {row["key_id"]: row["count"] for row in rows}


def open_requests_of(key_id: uuid.UUID) -> int:
    return InFlight.objects.filter(key=key_id).count()


def refusal_to_rotate(key: OpenRouterKey) -> str:
    """Why no rotation of the key may be started, as the end of a sentence; empty if it may. One query at most."""
    if key.state not in ROTATABLE:
        return f"already {key.get_state_display()}"
    if key.replaced_by_id is not None or key.replaces.exclude(state=KeyState.RETIRED).exists():
        return "already part of a rotation"
    return ""


def start_rotation(key_id: uuid.UUID, *, actor: Actor, secret: Sealed, name: str = "") -> Rotation:
    """Store the successor, pending; the caller checks it next. `name`: empty for the next of the line.

    Raises NotFound, RotationRefused, and what `add_key` raises.
    """
    with transaction.atomic():
        old = get_locked_key(key_id)
        if refusal := refusal_to_rotate(old):
            raise RotationRefused(f"{old} can't be rotated: it is {refusal}.")
        new = add_key(
            actor=actor,
            secret=secret,
            name=name or successor_name(old),
            account=old.account,
            tier=old.tier,
            note=old.note,
            state=KeyState.PENDING,
        )
        if not OpenRouterKey.objects.filter(pk=old.pk, state=old.state, replaced_by=None).update(replaced_by=new):
            raise IllegalStateChange(old, "being changed by someone else", "rotated")
        old.replaced_by = new
        record(actor, "key.rotation_started", old, after={"successor": new})
        record(actor, "key.rotation_started", new, after={"replaces": old})
    _log("started rotation", "key.rotation_started", old, new, actor)
    return Rotation(old, new, open_requests_of(old.pk))


def drain_key(key_id: uuid.UUID, *, actor: Actor) -> Rotation:
    """Give the old key no new request. Raises NotFound, RotationRefused or IllegalStateChange."""
    with transaction.atomic():
        old, new = _lock_rotation(key_id)
        if new.state != KeyState.ACTIVE:
            raise RotationRefused(f"{new} does not serve yet, it is {new.state}: check it, or cancel the rotation.")
        apply_action(old, KeyAction.DRAIN, actor=actor, now=timezone.now())
    return Rotation(old, new, open_requests_of(old.pk))


def finish_rotation(key_id: uuid.UUID, *, actor: Actor) -> Rotation:
    """Retire the old key. Raises RotationRefused while it may still be needed, and NotFound.

    Exact: who selected the key held its lock until the request's InFlight row was committed, and since it drains
    nobody selects it.
    """
    with transaction.atomic():
        old, new = _lock_rotation(key_id)
        if old.state == KeyState.ACTIVE:
            raise RotationRefused(f"{old} still gets new requests: drain it first.")
        if new.state != KeyState.ACTIVE:
            raise RotationRefused(f"{new} does not serve, it is {new.state}: check it, or cancel the rotation.")
        if open_requests := open_requests_of(old.pk):
            raise RotationRefused(f"{old} still answers {open_requests:,} requests: wait until they are finished.")
        apply_action(old, KeyAction.RETIRE, actor=actor, now=timezone.now())
    _log("finished rotation", "key.rotation_finished", old, new, actor)
    return Rotation(old, new, 0)


def cancel_rotation(key_id: uuid.UUID, *, actor: Actor) -> Rotation:
    """The old key serves again as before, and the successor is disabled. Raises RotationRefused or NotFound.

    The successor is not retired: its requests finish, and an operator may enable it as a key of its own.
    """
    with transaction.atomic():
        old, new = _lock_rotation(key_id)
        release(old, actor=actor)
        if allows(KeyAction.DISABLE, new.state):
            apply_action(new, KeyAction.DISABLE, actor=actor, now=timezone.now())
    _log("cancelled rotation", "key.rotation_cancelled", old, new, actor)
    return Rotation(old, new, open_requests_of(old.pk))


def finish_rotations() -> int:
    """Retire the draining keys that nothing is in flight for; how many. A task calls it, on any number of machines."""
    busy = InFlight.objects.values("key")
    drained = OpenRouterKey.objects.filter(state=KeyState.DRAINING, replaced_by__state=KeyState.ACTIVE)
    finished = 0
    for key_id in drained.exclude(pk__in=busy).values_list("pk", flat=True):
        try:
            finish_rotation(key_id, actor=TASK)
            finished += 1
        except KeysError as exc:  # someone else was faster
            logger.info("left a rotation", extra={"event": "key.rotation_left", "reason": str(exc)})
    return finished


# -- the line of keys that replaced each other -----------------------------------------------------------------------
def lineage_of(key_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """For each key the first one of its line: predecessor and successor have the same. One query.

    Reports group by it to show a rotated key as one.
    """
    older = dict(OpenRouterKey.objects.filter(replaced_by__isnull=False).values_list("replaced_by_id", "id"))
    return {key_id: first_of_line(key_id, older) for key_id in key_ids}


def first_of_line(key_id: uuid.UUID, older: Mapping[Any, uuid.UUID]) -> uuid.UUID:
    """`older` maps a successor to the key that it replaced."""
    seen = {key_id}
    while (before := older.get(key_id)) is not None and before not in seen:
        seen.add(before)
        key_id = before
    return key_id


def successor_name(key: OpenRouterKey) -> str:
    """`prod`, `prod.2`, `prod.3`: the first key's name and a number that is free."""
    first = OpenRouterKey.objects.get(pk=lineage_of([key.pk])[key.pk])
    start = f"{first.name[: LONGEST_NAME - 8]}."
    taken = set(OpenRouterKey.objects.filter(name__startswith=start).values_list("name", flat=True))
    return next(name for n in range(2, len(taken) + 3) if (name := f"{start}{n}") not in taken)


def _lock_rotation(key_id: uuid.UUID) -> tuple[OpenRouterKey, OpenRouterKey]:
    """The old key and its successor, locked. Raises NotFound, or RotationRefused when there is no open rotation."""
    successor = OpenRouterKey.objects.filter(pk=key_id).values_list("replaced_by_id", flat=True)
    locked = {key.pk: key for key in lock_keys(Q(pk=key_id) | Q(pk__in=successor))}
    old = locked.get(key_id)
    if old is None:
        raise NotFound("key", key_id)
    new = locked.get(old.replaced_by_id) if old.replaced_by_id else None
    if new is None or old.state == KeyState.RETIRED:
        raise RotationRefused(f"{old} has no open rotation.")
    return old, new


def _log(phrase: str, event: str, old: OpenRouterKey, new: OpenRouterKey, actor: Actor) -> None:
    extra = {"event": event, "key": old.tail, "key_name": old.name, "successor": new.name, "actor": actor.name}
    logger.info(phrase, extra=extra)
