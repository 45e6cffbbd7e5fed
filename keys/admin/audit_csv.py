"""The audit trail as a CSV file: what the list shows under its filters, whole, sent while it is read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse

from keys.csv_text import csv_chunks
from keys.models import AuditEvent

ROWS_AT_ONCE = 1000
HEADING = ("time", "actor", "from", "action", "type", "id", "name", "before", "after")


def audit_csv(request: HttpRequest, rows: QuerySet[AuditEvent]) -> StreamingHttpResponse:
    """Newest first; a query for each thousand rows, so that any number of them fits into memory."""
    chunks = csv_chunks(HEADING, _lines(rows))
    content = _in_threads(chunks) if isinstance(request, ASGIRequest) else chunks
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(content, content_type="text/csv; charset=utf-8", headers=headers)


def _lines(rows: QuerySet[AuditEvent]) -> Iterator[list[Any]]:
    last: int | None = None
    while True:
        older = rows if last is None else rows.filter(pk__lt=last)
        page = list(older.order_by("-pk")[:ROWS_AT_ONCE])
        yield from map(_line, page)
        if len(page) < ROWS_AT_ONCE:
            return
        last = page[-1].pk


def _line(row: AuditEvent) -> list[Any]:
    facts = (json.dumps(values, ensure_ascii=False) if values else "" for values in (row.before, row.after))
    about = (row.action, row.object_type, row.object_id, row.object_name)
    return [row.at.isoformat(), row.actor, row.ip, *about, *facts]


async def _in_threads(chunks: Iterator[str]) -> AsyncIterator[str]:
    """For the ASGI server: the database is asked in a thread, where it may be."""
    take = sync_to_async(lambda: next(chunks, None))
    while (chunk := await take()) is not None:
        yield chunk
