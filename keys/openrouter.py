"""Reads OpenRouter's answer to `GET /key`. Pure: bytes in, a frozen value out; fields may be missing or new.

Amounts are USD numbers; they become integer nano-USD by way of Decimal, never of a float.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

NANO_PER_USD = 1_000_000_000
MAX_USD = Decimal(9_000_000_000)  # what a 64-bit integer of nano-USD holds
RESETS = ("daily", "weekly", "monthly")


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What OpenRouter says of a key. None: unlimited (`limit_nano`), or not said."""

    label: str = ""
    limit_nano: int | None = None
    limit_remaining_nano: int | None = None
    limit_reset: str = ""
    usage_nano: int | None = None
    usage_daily_nano: int | None = None
    usage_weekly_nano: int | None = None
    usage_monthly_nano: int | None = None
    expires_at: dt.datetime | None = None
    has_room: bool | None = None  # for another request under the key's limit; None: not said
    owner: str = ""  # the organization, or without one the creator: whom the key bills to
    is_management_key: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """OpenRouter doesn't know the key, or has disabled it."""

    message: str


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing was learned about the key: unreachable, overloaded, or not understood."""

    message: str


def read_key_answer(status: int, body: bytes) -> KeyFacts | Refused | NoAnswer:
    """What an HTTP answer to `GET /key` means. Messages may repeat upstream's words: redact before they are stored."""
    document = parse_document(body)
    code, words = error_of(document)
    if status == 401 or (status == 200 and code == 401):
        return Refused(f"OpenRouter refuses this key (401){words}.")
    if status != 200:
        return NoAnswer(f"OpenRouter answered {status}{words}{_hint(status)}.")
    if code is not None:
        return NoAnswer(f"OpenRouter answered with error {code}{words}.")
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        return NoAnswer("The answer to GET /key can't be understood: is OPENROUTER_BASE_URL an OpenRouter API?")
    return _facts(data)


def next_reset(limit_reset: str, now: dt.datetime) -> dt.datetime | None:
    """When a daily, weekly or monthly limit starts anew: midnight UTC, on Monday, on the first; None for no reset."""
    today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if limit_reset == "daily":
        return today + dt.timedelta(days=1)
    if limit_reset == "weekly":
        return today + dt.timedelta(days=7 - today.weekday())
    if limit_reset == "monthly":
        return (today.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
    return None


def nano_usd(value: Any) -> int | None:
    """Integer nano-USD of a JSON number or a decimal string; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        amount = Decimal(value)
    except (InvalidOperation, ValueError):
        return None
    if not amount.is_finite() or abs(amount) > MAX_USD:
        return None
    return int((amount * NANO_PER_USD).to_integral_value(rounding=ROUND_HALF_EVEN))


def parse_document(body: bytes) -> Any:
    """The JSON in `body`, its fractions as Decimal; None for what is no JSON."""
    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def error_of(document: Any) -> tuple[Any, str]:
    """Code and words of an error, in both of OpenRouter's shapes; (None, "") without one."""
    error = document.get("error") if isinstance(document, dict) else None
    if not error:
        return None, ""
    if not isinstance(error, dict):
        return "unknown", ""
    code = error.get("code", error.get("type", "unknown"))
    message = error.get("message")
    words = f": {message.strip().rstrip('.')[:200]}" if isinstance(message, str) and message.strip() else ""
    return (401 if code in ("401", "authentication_error") else code), words


def _hint(status: int) -> str:
    if 300 <= status < 400:
        return "; redirects are not followed, check OPENROUTER_BASE_URL"
    return "; check OPENROUTER_BASE_URL" if status == 404 else ""


def _facts(data: dict[str, Any]) -> KeyFacts:
    limit, remaining = nano_usd(data.get("limit")), nano_usd(data.get("limit_remaining"))
    return KeyFacts(
        label=_text(data.get("label"))[:200],
        limit_nano=limit,
        limit_remaining_nano=remaining,
        limit_reset=_reset(data.get("limit_reset")),
        usage_nano=nano_usd(data.get("usage")),
        usage_daily_nano=nano_usd(data.get("usage_daily")),
        usage_weekly_nano=nano_usd(data.get("usage_weekly")),
        usage_monthly_nano=nano_usd(data.get("usage_monthly")),
        expires_at=_moment(data.get("expires_at")),
        has_room=_has_room(data, remaining),
        owner=(_text(data.get("organization_id")) or _text(data.get("creator_user_id")))[:200],
        is_management_key=data.get("is_management_key") is True or data.get("is_provisioning_key") is True,
    )


def _has_room(data: dict[str, Any], remaining: int | None) -> bool | None:
    if "limit" in data and data["limit"] is None:
        return True
    return None if remaining is None else remaining > 0


def _reset(value: Any) -> str:
    return value if isinstance(value, str) and value in RESETS else ""


def _text(value: Any) -> str:
    """Printable text as every database stores it; empty for what is no text."""
    return "".join(mark for mark in value if mark.isprintable()).strip() if isinstance(value, str) else ""


def _moment(value: Any) -> dt.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(value)
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
