"""Reads OpenRouter's answer to `GET /models`. Pure; fields may be missing or new.

Prices come as decimal strings of USD per token and become integers of nano-USD per million tokens, by way of Decimal.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from keys.openrouter import NANO_PER_USD, parse_document
from keys.pricing import TOKENS_PER_PRICE

MAX_NUMBER = 2**63 - 1


class NotAModelList(Exception):
    """The answer to GET /models can't be understood."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """Prices in nano-USD per million tokens; None: none is listed, as for routers."""

    model: str
    name: str
    context_length: int | None
    max_output: int | None
    prompt: int | None
    completion: int | None
    cache_read: int | None
    cache_write: int | None
    created: dt.datetime | None


@dataclass(frozen=True, slots=True)
class ModelPage:
    """`entries` counts also those that could not be understood, which `models` leaves out."""

    models: tuple[ListedModel, ...]
    entries: int
    has_more: bool


def read_model_page(body: bytes, offset: int) -> ModelPage:
    """One page that began at `offset`. Raises `NotAModelList`."""
    document = parse_document(body)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise NotAModelList
    found = [model for entry in data if (model := _read_model(entry)) is not None]
    links = document.get("links")
    total = _number(document.get("total_count")) or 0
    has_more = bool(data) and (total > offset + len(data) or bool(isinstance(links, dict) and links.get("next")))
    return ModelPage(tuple(found), len(data), has_more)


def per_million(text: Any) -> int | None:
    """Nano-USD per million tokens of a price per token; None for "-1", no price. Raises ValueError for other texts."""
    if isinstance(text, bool) or not isinstance(text, str | int | Decimal):
        raise ValueError("not a price")
    try:
        price = Decimal(text) * NANO_PER_USD * TOKENS_PER_PRICE
    except InvalidOperation as exc:
        raise ValueError("not a price") from exc
    if not price.is_finite() or price > MAX_NUMBER:
        raise ValueError("not a price")
    return None if price < 0 else int(price.to_integral_value(rounding=ROUND_HALF_EVEN))


def _read_model(entry: Any) -> ListedModel | None:
    """None for an entry without a name or with prices that can't be read: what is stored of it stays."""
    if not isinstance(entry, dict) or not isinstance(entry.get("pricing"), dict):
        return None
    model, pricing = _text(entry.get("id")), entry["pricing"]
    top = entry.get("top_provider")
    try:
        prompt, completion = per_million(pricing.get("prompt")), per_million(pricing.get("completion"))
        cache_read, cache_write = (_optional(pricing, f"input_cache_{kind}") for kind in ("read", "write"))
    except ValueError:
        return None
    if not model or len(model) > 200:
        return None
    return ListedModel(
        model=model,
        name=_text(entry.get("name"))[:200],
        context_length=_number(entry.get("context_length")),
        max_output=_number(top.get("max_completion_tokens")) if isinstance(top, dict) else None,
        prompt=prompt,
        completion=completion,
        cache_read=cache_read,
        cache_write=cache_write,
        created=_moment(entry.get("created")),
    )


def _optional(pricing: dict[str, Any], name: str) -> int | None:
    return None if pricing.get(name) is None else per_million(pricing[name])


def _number(value: Any) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER
    return value if is_number else None


def _text(value: Any) -> str:
    return "".join(mark for mark in value if mark.isprintable()).strip() if isinstance(value, str) else ""


def _moment(value: Any) -> dt.datetime | None:
    number = _number(value)
    try:
        return None if number is None else dt.datetime.fromtimestamp(number, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
