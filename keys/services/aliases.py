"""Saves and deletes model aliases. Called by the admin; effective on the next request."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from keys.errors import DuplicateName, InvalidField, NotFound
from keys.models import ModelAlias
from keys.services.audit import Actor, changes, record
from keys.services.fields import clean_name


def save_alias(*, actor: Actor, name: str, target: str, alias_id: int | None = None) -> ModelAlias:
    """Create an alias, or change the one with `alias_id`. Raises InvalidField, DuplicateName or NotFound."""
    wanted = {"name": _clean_model(name, "name"), "target": _clean_model(target, "target")}
    try:
        with transaction.atomic():
            return _create(actor, wanted) if alias_id is None else _change(actor, alias_id, wanted)
    except IntegrityError as exc:
        raise DuplicateName("an alias", wanted["name"]) from exc


def delete_alias(alias_id: int, *, actor: Actor) -> None:
    """Raises NotFound."""
    with transaction.atomic():
        alias = _get_locked_alias(alias_id)
        record(actor, "alias.deleted", alias, before={"name": alias.name, "target": alias.target})
        ModelAlias.objects.filter(pk=alias.pk).delete()


def _create(actor: Actor, wanted: dict[str, str]) -> ModelAlias:
    alias = ModelAlias(**wanted)
    alias.save(force_insert=True)
    record(actor, "alias.added", alias, after=wanted)
    return alias


def _change(actor: Actor, alias_id: int, wanted: dict[str, str]) -> ModelAlias:
    alias = _get_locked_alias(alias_id)
    before, after = changes({field: getattr(alias, field) for field in wanted}, wanted)
    if after:
        ModelAlias.objects.filter(pk=alias.pk).update(**after)
        alias.refresh_from_db()
        record(actor, "alias.edited", alias, before=before, after=after)
    return alias


def _get_locked_alias(alias_id: int) -> ModelAlias:
    alias = ModelAlias.objects.select_for_update(no_key=True).filter(pk=alias_id).first()
    if alias is None:
        raise NotFound("alias", alias_id)
    return alias


def _clean_model(value: str, field: str) -> str:
    model = clean_name(value, field=field, longest=200)
    if " " in model:
        raise InvalidField(field, f"The {field} is a model's name: it can't hold a space.")
    return model
