"""Background calls to OpenRouter: one GET, bounded in time and size. Used by checks, costs and the catalogue."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx
from django.conf import settings

from keys.sealing import Sealed

TIMEOUT_SECONDS = 10.0
LONGEST_ANSWER_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024 * 1024


def open_client(transport: httpx.BaseTransport | None) -> httpx.Client:
    """`transport` is for tests."""
    return httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS, follow_redirects=False)


def get(
    client: httpx.Client,
    path: str,
    *,
    secret: Sealed | None = None,
    params: Mapping[str, str | int] | None = None,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> tuple[int, bytes]:
    """Status and body, cut short past `max_bytes`. Raises httpx's errors; ReadTimeout also for an answer that drips."""
    headers = {**settings.OPENROUTER_HEADERS, "accept": "application/json", "accept-encoding": "identity"}
    if secret is not None:
        headers["authorization"] = f"Bearer {secret.reveal()}"
    stop_at = time.monotonic() + LONGEST_ANSWER_SECONDS
    with client.stream("GET", f"{settings.OPENROUTER_BASE_URL}{path}", headers=headers, params=params) as response:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > max_bytes:
                return response.status_code, bytes(body[:max_bytes])  # no JSON: reported as not understood
            if time.monotonic() > stop_at:
                raise httpx.ReadTimeout("the answer takes too long")
        return response.status_code, bytes(body)
