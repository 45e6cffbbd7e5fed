"""What the service itself answers when it can't or won't serve a request, in Anthropic's shape.

`Refusal` is the one exception of the data plane that ends a request with an HTTP error. The edge (handler, views)
catches it and sends `error_body` with `refusal_headers`; after the first byte only `error_event` is left.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Final

MIN_RETRY_AFTER_SECONDS: Final = 1
MAX_RETRY_AFTER_SECONDS: Final = 60  # SDKs sleep as long as they are told, for hours if need be


# Not frozen, although nothing changes it: contextlib and `add_note` set attributes on exceptions that pass by.
@dataclass(slots=True, eq=False)
class Refusal(Exception):
    """`should_retry` becomes `x-should-retry`, which overrides the SDKs' own table; None leaves it to them."""

    status: int
    error_type: str
    message: str
    retry_after_seconds: int | None = None
    should_retry: bool | None = None
    allow: str = ""  # the methods that a 405 names

    def __str__(self) -> str:
        return f"{self.status} {self.error_type}: {self.message}"


def clamp_retry_after(seconds: float) -> int:
    """Whole seconds from 1 to 60, rounded up so that nobody comes back too early."""
    if not seconds > MIN_RETRY_AFTER_SECONDS:  # also NaN
        return MIN_RETRY_AFTER_SECONDS
    return min(-int(-seconds // 1), MAX_RETRY_AFTER_SECONDS) if seconds < MAX_RETRY_AFTER_SECONDS else 60


def _document(error_type: str, message: str, request_id: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": error_type, "message": message}, "request_id": request_id}


def error_body(error_type: str, message: str, request_id: str) -> bytes:
    """The JSON body. A lone surrogate in `message` (a path, a header) becomes a question mark."""
    return json.dumps(_document(error_type, message, request_id), ensure_ascii=False).encode("utf-8", "replace")


def error_event(error_type: str, message: str, request_id: str) -> bytes:
    """The event that ends a stream. Plain ASCII: some clients split lines at U+2028 too."""
    clean = message.encode("utf-8", "replace").decode()
    return b"event: error\ndata: " + json.dumps(_document(error_type, clean, request_id)).encode() + b"\n\n"


def refusal_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json")]
    if refusal.retry_after_seconds is not None:
        headers.append((b"retry-after", str(refusal.retry_after_seconds).encode()))
    if refusal.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if refusal.should_retry else b"false"))
    if refusal.allow:
        headers.append((b"allow", refusal.allow.encode()))
    return headers


# -- The standard refusals -------------------------------------------------------------------------------------------
def bad_credential() -> Refusal:
    """One text for malformed, unknown, revoked and expired: the log says which.

    `should_retry` is False because Claude Code tries a 401 ten times without it.
    """
    return Refusal(
        401,
        "authentication_error",
        "The client key is not valid. Send a client key of this service as x-api-key or as Authorization: Bearer.",
        should_retry=False,
    )


def invalid_request(message: str) -> Refusal:
    return Refusal(400, "invalid_request_error", message)


def too_large() -> Refusal:
    return Refusal(413, "request_too_large", "The request body is larger than 32 MB, the limit of the Messages API.")


def overloaded(message: str, retry_after_seconds: float) -> Refusal:
    return Refusal(529, "overloaded_error", message, clamp_retry_after(retry_after_seconds))


def timed_out(message: str) -> Refusal:
    """Not to be sent again: what timed out may have been billed."""
    return Refusal(504, "timeout_error", message, should_retry=False)


def spend_limit_reached(period: str, resets_at: dt.datetime | None) -> Refusal:
    """The client's own budget is used up. Status, type, words and `x-should-retry` are what Claude Code stops at.

    `period`: daily, weekly, monthly or total, as the budget says; `resets_at` is aware.
    """
    when = f"; resets {resets_at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}" if resets_at is not None else ""
    return Refusal(429, "billing_error", f"spend limit reached ({period}{when})", should_retry=False)


def internal_error() -> Refusal:
    return Refusal(500, "api_error", "The service failed. Its log has the reason under this request's id.")


def method_not_allowed(method: str, allow: str) -> Refusal:
    """`allow`: the methods of the path, separated by commas; the first of them is the one to use."""
    message = f"Method {method[:20]} is not allowed here. Use {allow.partition(',')[0]}."
    return Refusal(405, "invalid_request_error", message, allow=allow)


def not_found(path: str) -> Refusal:
    """Mostly a base URL with one /v1 too many or too few."""
    message = (
        f"There is nothing at {path[:100]}. The APIs are at POST /v1/messages and POST /v1/chat/completions: "
        "Anthropic's clients take a base URL without /v1, OpenAI's one with it."
    )
    return Refusal(404, "not_found_error", message)


def no_usable_key() -> Refusal:
    """The pool has no active key at all; an operator has to act, so a quick retry is of no use."""
    message = "At least one OpenRouter API key is required. The operator of this service can add one in its admin."
    return Refusal(529, "overloaded_error", message, MAX_RETRY_AFTER_SECONDS)


def keys_exhausted(rate_limited: bool, retry_after_seconds: float) -> Refusal:
    """Every key is benched or was tried. `rate_limited`: at least one key only waits for its rate limit."""
    retry_after = clamp_retry_after(retry_after_seconds)
    message = f"All keys exhausted: no OpenRouter key is free at the moment. Try again in {retry_after} s."
    if rate_limited:
        return Refusal(429, "rate_limit_error", message, retry_after)
    return Refusal(529, "overloaded_error", message, retry_after)
