"""`GET /v1/models` as Anthropic's and OpenAI's clients both read it: rows, pages, and one model by its name. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from keys.ledger_items import OfferedModel
from keys.model_names import upstream_model
from proxy.errors import Refusal, invalid_request

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 1000
_UNKNOWN_DATE: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # what Anthropic's reference says it may be


def page_of(models: Sequence[OfferedModel], query: Mapping[str, str], *, default_limit: int) -> dict[str, Any]:
    """One page. Raises a 400 `Refusal` for a `limit`, `after_id` or `before_id` that can't be."""
    limit = _limit(query.get("limit", ""), default_limit)
    after, before = query.get("after_id", ""), query.get("before_id", "")
    if after and before:
        raise invalid_request("after_id: must not be sent together with before_id")
    if before:
        end = _position(models, before, "before_id")
        start = max(end - limit, 0)
        shown, has_more = models[start:end], start > 0
    else:
        start = _position(models, after, "after_id") + 1 if after else 0
        shown, has_more = models[start : start + limit], start + limit < len(models)
    return {
        "object": "list",
        "data": [describe(model) for model in shown],
        "has_more": has_more,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
    }


def find_model(models: Sequence[OfferedModel], asked: str) -> OfferedModel:
    """The model that a request for `asked` would use, under the name that was asked for. Raises a 404 `Refusal`."""
    by_id = {model.id: model for model in models}
    aliases = {model.id: model.target for model in models if model.target != model.id}
    found = by_id.get(asked) or by_id.get(upstream_model(asked, aliases))
    if found is None:
        raise Refusal(404, "not_found_error", f"model: {asked[:200]}")
    return OfferedModel(asked, found.target, found.name, found.context_length, found.max_output, found.created)


def describe(model: OfferedModel) -> dict[str, Any]:
    """Anthropic's fields, then OpenAI's."""
    created = model.created or _UNKNOWN_DATE
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.name,
        "created_at": created.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.context_length,
        "max_tokens": model.max_output,
        "lifecycle": "active",
        "object": "model",
        "created": int(created.timestamp()),
        "owned_by": model.target.removeprefix("~").partition("/")[0],
    }


def _limit(text: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= MAX_LIMIT):
        raise invalid_request(f"limit: must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def _position(models: Sequence[OfferedModel], asked: str, field: str) -> int:
    for index, model in enumerate(models):
        if model.id == asked:
            return index
    raise invalid_request(f"{field}: no model has the id {asked[:200]}")
