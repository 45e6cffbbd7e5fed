"""CSV that a spreadsheet opens as what it is: text that could be read as a formula is marked as text."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
LINES_AT_ONCE = 200


def plain(value: Any) -> Any:
    """The value as a cell; numbers stay numbers. A leading apostrophe makes a spreadsheet show text as it is."""
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "")
    return f"'{text}" if text.lstrip(" \u00a0\ufeff\"'").startswith(FORMULA_STARTS) or text.startswith("'") else text


def csv_chunks(heading: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """The whole file, some lines at a time."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    writer.writerow([plain(cell) for cell in heading])
    for number, row in enumerate(rows, start=1):
        writer.writerow([plain(cell) for cell in row])
        if number % LINES_AT_ONCE == 0:
            yield _taken(buffer)
    yield _taken(buffer)


def csv_response(
    request: HttpRequest, filename: str, heading: Iterable[str], rows: Iterable[Iterable[Any]]
) -> StreamingHttpResponse:
    """A download that is sent while it is written. `filename` is ours: letters, digits, dots and dashes."""
    chunks = csv_chunks(heading, rows)
    content = _in_turn(chunks) if isinstance(request, ASGIRequest) else chunks
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(content, content_type="text/csv; charset=utf-8", headers=headers)


async def _in_turn(chunks: Iterator[str]) -> AsyncIterator[str]:
    """For the ASGI server. The rows must be in memory: nothing may ask the database here."""
    for chunk in chunks:
        yield chunk


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
