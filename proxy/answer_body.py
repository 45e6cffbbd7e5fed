"""Reads upstream's bodies, bounded."""

from __future__ import annotations

import logging
from typing import cast

import httpx

from proxy.upstream import Broken, Unanswered, has_ended

logger = logging.getLogger("opensvm.proxy")

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 256 * 1024


async def read_answer_body(response: httpx.Response) -> bytes:
    """A whole body; raises `Broken` when it is larger than any answer can be."""
    chunks, size = [], 0
    async for chunk in cast(httpx.AsyncByteStream, response.stream):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise Broken(f"upstream's answer is larger than {MAX_ANSWER_BYTES:,} bytes")
        chunks.append(chunk)
        if has_ended(response):
            break
    return b"".join(chunks)


async def read_error_body(response: httpx.Response) -> bytes:
    """As much of an error's body as explains it. A body that is cut still leaves the status to go by."""
    chunks, size = [], 0
    try:
        async for chunk in cast(httpx.AsyncByteStream, response.stream):
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_ERROR_BYTES:
                break
    except Unanswered:
        logger.info("error answer was cut", extra={"event": "upstream.error_cut", "status": response.status_code})
    return b"".join(chunks)
