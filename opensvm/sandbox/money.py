"""Money as OpenRouter writes it: JSON numbers and decimal strings in USD, made from integer nano-USD."""

from __future__ import annotations

import json
import re
import secrets
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

NANO = 10**9
TOKENS_PER_PRICE = 10**6  # prices are nano-USD per million tokens

_MARK = secrets.token_hex(8)  # unguessable, so that no text of a request can pass for a number
_MARKED = re.compile(f'"{_MARK}:([^"]*)"')
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def decimal_text(nano: int) -> str:
    """The exact USD amount without exponent or trailing zeros: 12300 -> "0.0000123"."""
    text = f"{Decimal(nano) / NANO:.9f}"
    return text.rstrip("0").rstrip(".")


def number(text: str) -> str:
    """A stand-in which `dump` writes as the JSON number `text`, digit by digit, as no float would."""
    if not _JSON_NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a JSON number; write it like 0.0000123.")
    return f"{_MARK}:{text}"


def usd(nano: int) -> str:
    return number(decimal_text(nano))


def nano_of(text: str) -> int:
    """The nano-USD of a decimal text, halves up."""
    return int((Decimal(text) * NANO).to_integral_value(ROUND_HALF_UP))


def price_text(per_million: int) -> str:
    """A price per million tokens as the catalogue shows it: a decimal string, USD per token."""
    text = f"{Decimal(per_million) / NANO / TOKENS_PER_PRICE:.15f}"
    return text.rstrip("0").rstrip(".")


def dump(document: Any) -> bytes:
    """Compact JSON as UTF-8, with the numbers of `number` and `usd` in place."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return _MARKED.sub(r"\1", text).encode("utf-8", "replace")
