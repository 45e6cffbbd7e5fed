"""The audit trail. Every service calls `record` inside the transaction of its change: no audit row, no change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import models

from keys.models import AuditEvent


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change. `user_id` only for people: it fills `created_by`."""

    name: str
    ip: str = ""
    user_id: int | None = None


COMMAND_LINE = Actor("command line")
ENVIRONMENT = Actor("environment")
TASK = Actor("task")


def record(
    actor: Actor,
    action: str,
    obj: models.Model,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write one audit row; the caller holds the transaction. `before` and `after` hold what changed, no secrets."""
    AuditEvent.objects.create(
        actor=actor.name[:150],
        action=action,
        object_type=str(obj._meta.model_name),
        object_id=str(obj.pk),
        object_name=str(obj)[:200],
        before=_storable(before),
        after=_storable(after),
        ip=actor.ip[:45],
    )


def record_secret_use(actor: Actor, purpose: str, key_names: Sequence[str]) -> None:
    """Write, before stored secrets are opened in the background, whose and what for. One row for a whole run."""
    AuditEvent.objects.create(
        actor=actor.name[:150],
        action="key.secrets_used",
        object_type="openrouterkey",
        object_id="",
        object_name=(key_names[0] if len(key_names) == 1 else f"{len(key_names)} keys")[:200],
        before={},
        after={"for": purpose, "keys": list(key_names)},
        ip=actor.ip[:45],
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two mappings without what is equal in both."""
    changed = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in changed}, {name: after[name] for name in changed}


def _storable(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: _storable_value(value) for name, value in (values or {}).items()}


def _storable_value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, UUID | models.Model):
        return str(value)
    return value
