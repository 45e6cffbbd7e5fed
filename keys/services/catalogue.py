"""Keeps the model catalogue, `ModelPrice`, in step with OpenRouter's `GET /models`. Called by the background task.

What upstream no longer lists stays, with its last price: old requests may still have to be estimated. Of prices that
change with the size of a prompt (`overrides`) only the base is kept.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import asdict

import httpx
from django.conf import settings
from django.db import transaction

from keys.model_list import ListedModel, ModelPage, NotAModelList, read_model_page
from keys.models import ModelPrice, PriceSource, Watermark
from keys.services.asking import get, open_client

logger = logging.getLogger("opensvm.catalogue")

NEXT_SYNC = "catalogue.next"  # a watermark: no sync before it
PAGE_MODELS = 1000
MAX_PAGES = 20
MAX_PAGE_BYTES = 32 * 1024 * 1024
WRITE_ROWS = 100
BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SYNCED_FIELDS = (
    *("name", "context_length", "max_output", "prompt", "completion", "cache_read", "cache_write", "created"),
    *("updated_at", "source"),
)


class NoModelList(Exception):
    """Upstream gave no list of models; the message says why."""


def sync_catalogue(now: dt.datetime, *, transport: httpx.BaseTransport | None = None) -> int:
    """Read the list if that is due and nobody else is at it; how many models were stored."""
    if not _claim(now):
        return 0
    try:
        with open_client(transport) as client:
            models = _fetch(client)
    except (NoModelList, httpx.HTTPError, httpx.InvalidURL) as exc:
        extra = {"event": "catalogue.not_synced"}
        logger.warning(f"could not read the list of models: {str(exc) or type(exc).__name__}", extra=extra)
        return 0
    _store(models, now)
    logger.info("synced the model catalogue", extra={"event": "catalogue.synced", "models": len(models)})
    return len(models)


def _claim(now: dt.datetime) -> bool:
    """Whether a sync is due. It is tried again soon unless `_store` says that it has succeeded."""
    again_at = now + dt.timedelta(seconds=settings.RETRY_CATALOGUE_SECONDS)
    if Watermark.objects.filter(name=NEXT_SYNC, at__gt=now).exists():
        return False
    with transaction.atomic():
        Watermark.objects.get_or_create(name=NEXT_SYNC, defaults={"at": BEGINNING})
        return bool(Watermark.objects.filter(name=NEXT_SYNC, at__lte=now).update(at=again_at))


def _fetch(client: httpx.Client) -> list[ListedModel]:
    """All pages. A page that brings nothing new ends it, whatever it says of more."""
    found: dict[str, ListedModel] = {}
    offset = 0
    for _ in range(MAX_PAGES):
        page = _fetch_page(client, offset)
        new = {model.model: model for model in page.models if model.model not in found}
        found |= new
        offset += page.entries
        if not page.has_more or not new:
            break
    if not found:
        raise NoModelList("it is empty or can't be understood: is OPENROUTER_BASE_URL an OpenRouter API?")
    return list(found.values())


def _fetch_page(client: httpx.Client, offset: int) -> ModelPage:
    """The next page is asked for by its offset; an address in the answer is not followed."""
    params = {"offset": offset, "limit": PAGE_MODELS}
    status, body = get(client, "/models", params=params, max_bytes=MAX_PAGE_BYTES)
    if status != 200:
        raise NoModelList(f"OpenRouter answered {status}")
    try:
        return read_model_page(body, offset)
    except NotAModelList as exc:
        raise NoModelList("the answer to GET /models can't be understood") from exc


def _store(models: Sequence[ListedModel], now: dt.datetime) -> None:
    rows = [
        ModelPrice(**asdict(listed), updated_at=now, source=PriceSource.SYNCED)
        for listed in sorted(models, key=lambda listed: listed.model)  # several at once lock in one order
    ]
    for start in range(0, len(rows), WRITE_ROWS):
        with transaction.atomic():
            ModelPrice.objects.bulk_create(
                rows[start : start + WRITE_ROWS],
                update_conflicts=True,
                unique_fields=["model"],
                update_fields=_SYNCED_FIELDS,
            )
    with transaction.atomic():
        next_at = now + dt.timedelta(seconds=settings.SYNC_CATALOGUE_SECONDS)
        Watermark.objects.filter(name=NEXT_SYNC).update(at=next_at)
