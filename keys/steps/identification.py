"""IDENTIFY: is the client known, and which models are there. Part of a batch; it reads only, without locks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from keys.ledger_items import Denied, Identify, Known, OfferedModel
from keys.model_names import alias_candidates, upstream_model
from keys.models import ModelAlias, ModelPrice
from keys.steps.admission import read_clients
from keys.steps.statements import Statements

_OLDEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def identify(items: Sequence[Identify], *, sql: Statements, now: dt.datetime) -> list[Known | Denied]:
    """One statement for all of them, one more when any names a model, two more when any wants the list."""
    clients = read_clients(sql, {item.client_digest for item in items}, now)
    names = sorted({name for item in items if item.model_asked for name in alias_candidates(item.model_asked)})
    aliases = sql.read_aliases(names) if names else {}
    models = read_offered_models() if any(item.wants_models for item in items) else ()
    results: list[Known | Denied] = []
    for item in items:
        client = clients.get(item.client_digest)
        if client is None:
            results.append(Denied("unknown"))
        elif client.denial:
            results.append(Denied(client.denial))
        else:
            model_sent = upstream_model(item.model_asked, aliases)
            results.append(Known(client.id, client.name, model_sent, models if item.wants_models else ()))
    return results


def read_offered_models() -> tuple[OfferedModel, ...]:
    """Two queries. An alias is described by its target, where the catalogue knows that."""
    fields = ("model", "name", "context_length", "max_output", "created")
    catalogue = [
        OfferedModel(model, model, name or model, context, output, created)
        for model, name, context, output, created in ModelPrice.objects.values_list(*fields)
    ]
    catalogue.sort(key=lambda model: model.id)
    catalogue.sort(key=lambda model: model.created or _OLDEST, reverse=True)  # stable: by name among equals
    by_id = {model.id: model for model in catalogue}
    aliases = [
        _described(name, target, by_id.get(target))
        for name, target in ModelAlias.objects.order_by("name").values_list("name", "target")
    ]
    taken = {alias.id for alias in aliases}
    return (*aliases, *(model for model in catalogue if model.id not in taken))


def _described(name: str, target: str, model: OfferedModel | None) -> OfferedModel:
    if model is None:
        return OfferedModel(name, target, name, None, None, None)
    return OfferedModel(name, target, model.name, model.context_length, model.max_output, model.created)
