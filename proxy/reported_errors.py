"""Reads what upstream says about a failure, in whichever shape it says it; `proxy.failures` decides what it means.

The shapes: Anthropic's `{"type":"error","error":{...}}`, OpenRouter's `{"error":{"code","message","metadata"}}`, the
same with status 200 or inside of `choices`, and pages or plain text of an edge server. None of it is trusted: any
value may be missing, of another type or absurd.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Final

from proxy.answers import parse_payload
from proxy.error_table import OPENROUTER_STATUSES, STATUSES

_MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_RESET: Final = dt.timedelta(days=400)


@dataclass(frozen=True, slots=True)
class ReportedError:
    """`status`: the HTTP status, or what a body with status 200 tells instead. Texts are as upstream wrote them.

    `is_page`: an HTML page, which no API writes: an edge server between us and upstream did.
    `retry_after_seconds`: the first of the hints that can be understood, as given, 0 or more.
    """

    status: int
    http_status: int
    message: str
    error_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_available_elsewhere: bool = False
    is_page: bool = False
    is_error: bool = True
    retry_after_seconds: float | None = None
    resets_at: dt.datetime | None = None

    @property
    def limit_words(self) -> str:
        """`limit_source` and `reason`, which name the limit that was hit."""
        return f"{text_of(self.metadata.get('limit_source'))} {text_of(self.metadata.get('reason'))}".strip()

    @property
    def is_of_provider(self) -> bool:
        """Whether the failure is marked as one of the provider behind OpenRouter, not of OpenRouter itself."""
        return (
            "upstream_provider" in self.limit_words
            or bool(text_of(self.metadata.get("provider_name")))
            or self.is_available_elsewhere
            or self.error_type in ("provider_overloaded", "provider_unavailable")
            or self.message.lower().startswith("provider returned error")
        )


def read_error(status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime) -> ReportedError:
    """The error in an HTTP answer. `headers` have lower-case names."""
    document = parse_payload(body) if len(body) <= _MAX_BODY_BYTES else {}
    if document:
        return read_error_document(document, status=status, headers=headers, now=now)
    text = body[:_MAX_BODY_BYTES].decode("utf-8", "replace").strip()
    is_page = text.startswith("<") or headers.get("content-type", "").lower().startswith("text/html")
    return ReportedError(
        status=status,
        http_status=status,
        message="" if is_page else text,
        is_page=is_page,
        is_error=status >= 400,
        retry_after_seconds=_retry_after(headers, {}, {}, now),
    )


def read_error_document(
    document: Mapping[str, Any], *, status: int, headers: Mapping[str, str], now: dt.datetime
) -> ReportedError:
    """The error in a parsed body, or in the data of an `error` event (then `status` is 200)."""
    found = _find_error(document)
    error = found or {}
    metadata = mapping_of(error.get("metadata")) or mapping_of(document.get("metadata"))
    availability = mapping_of(error.get("availability")) or mapping_of(metadata.get("availability"))
    error_type = text_of(error.get("error_type")) or text_of(metadata.get("error_type"))
    message = _full_message(text_of(error.get("message")), metadata)
    return ReportedError(
        status=status if status >= 400 else _status_told(error, error_type),
        http_status=status,
        message=message,
        error_type=error_type,
        metadata=metadata,
        is_available_elsewhere=bool(availability),
        is_error=found is not None or status >= 400,
        retry_after_seconds=_retry_after(headers, metadata, availability, now),
        resets_at=_resets_at(metadata, message, now),
    )


def _find_error(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = document.get("choices")
    first_choice = mapping_of(choices[0]) if isinstance(choices, list) and choices else {}
    for value in (document.get("error"), first_choice.get("error")):
        if isinstance(value, str) and value:
            return {"message": value, **document}
        if isinstance(value, dict):
            return value
    if document.get("type") == "error" or "code" in document or isinstance(document.get("message"), str):
        return document
    return None


def _status_told(error: Mapping[str, Any], error_type: str) -> int:
    """The status that an error within a 200 stands for."""
    code = _number(error.get("code"))
    if code is not None and 400 <= code <= 599:
        return int(code)
    if error_type in OPENROUTER_STATUSES:
        return OPENROUTER_STATUSES[error_type]
    if error_type.startswith("invalid_"):
        return 400
    return STATUSES.get(text_of(error.get("type")), 500)


def _full_message(message: str, metadata: Mapping[str, Any]) -> str:
    """With the provider's own words where upstream's say nothing: clients look for "prompt is too long" in them."""
    if message and not message.lower().rstrip(".").endswith("provider returned error"):
        return message
    raw = metadata.get("raw")
    nested = mapping_of(raw) or (parse_payload(raw.encode("utf-8", "replace")) if isinstance(raw, str) else {})
    inner = text_of((_find_error(nested) or {}).get("message")) or ("" if nested else text_of(raw))
    return ": ".join(part for part in (message, inner) if part)


# -- Hints -----------------------------------------------------------------------------------------------------------
def _retry_after(
    headers: Mapping[str, str], metadata: Mapping[str, Any], availability: Mapping[str, Any], now: dt.datetime
) -> float | None:
    """Seconds from now, from the most to the least direct hint."""
    inner = {name.lower(): value for name, value in mapping_of(metadata.get("headers")).items()}
    hints = (
        _seconds_or_date(headers.get("retry-after"), now),
        _milliseconds(headers.get("retry-after-ms")),
        _number(metadata.get("retry_after_seconds")),
        _seconds_or_date(inner.get("retry-after"), now),
        _number(availability.get("retry_after")),
        _seconds_until_epoch(headers.get("x-ratelimit-reset"), now),
        _seconds_until_epoch(inner.get("x-ratelimit-reset"), now),
    )
    return next((hint for hint in hints if hint is not None), None)


def _seconds_or_date(value: object, now: dt.datetime) -> float | None:
    seconds = _number(value)
    if seconds is not None or not isinstance(value, str):
        return seconds
    try:
        at = _aware(parsedate_to_datetime(value))
        return max((at - now).total_seconds(), 0.0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _milliseconds(value: object) -> float | None:
    number = _number(value)
    return None if number is None else number / 1000


def _seconds_until_epoch(value: object, now: dt.datetime) -> float | None:
    """X-RateLimit-Reset is in epoch milliseconds; a figure of this age in seconds is understood too."""
    number = _number(value)
    if number is None or number < 1e9:
        return None
    return max((number / 1000 if number >= 1e11 else number) - now.timestamp(), 0.0)


def _resets_at(metadata: Mapping[str, Any], message: str, now: dt.datetime) -> dt.datetime | None:
    """When a spending limit starts anew: as told, else by its period, in UTC and with weeks from Monday."""
    told = _moment(metadata.get("resets_at"), now)
    if told is not None:
        return told if told - now <= _MAX_RESET else None
    period = text_of(metadata.get("limit_reset")) or text_of(metadata.get("reset_interval"))
    if not period and (found := re.search(r"\((daily|weekly|monthly) limit\)", message, re.IGNORECASE)):
        period = found[1]
    return next_reset(period, now)


def next_reset(period: str, now: dt.datetime) -> dt.datetime | None:
    """The next start of a `limit_reset` period (daily, weekly, monthly); None for any other."""
    today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period.lower():
        case "daily":
            return today + dt.timedelta(days=1)
        case "weekly":
            return today + dt.timedelta(days=7 - today.weekday())
        case "monthly":
            return (today.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
    return None


def _moment(value: object, now: dt.datetime) -> dt.datetime | None:
    """An ISO 8601 text or an epoch, as an aware time."""
    try:
        if isinstance(value, str) and _number(value) is None:
            return _aware(dt.datetime.fromisoformat(value))
        seconds = _seconds_until_epoch(value, now)
        return None if seconds is None else now + dt.timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return None


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


# -- Values that may be anything -------------------------------------------------------------------------------------
def mapping_of(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """A finite number of 0 or more, also one written as a text."""
    if isinstance(value, str):
        value = value.strip()
        if not re.fullmatch(r"[0-9]+(?:\.[0-9]*)?", value):
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
