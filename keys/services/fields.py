"""What services demand of the texts and numbers that operators type in. Pure; raises `InvalidField`."""

from __future__ import annotations

import datetime as dt

from keys.errors import InvalidField

MAX_TIER = 32767


def clean_name(value: str, *, field: str = "name", longest: int = 100) -> str:
    """Trimmed, 1 to `longest` characters, all printable: names go into logs, pages and shells."""
    name = value.strip()
    if not name:
        raise InvalidField(field, f"The {field} must not be empty.")
    if len(name) > longest:
        raise InvalidField(field, f"The {field} has {len(name)} characters; at most {longest} are allowed.")
    if not name.isprintable():
        raise InvalidField(field, f"The {field} holds a line break or another character that can't be printed.")
    return name


def clean_text(value: str, *, field: str) -> str:
    """Trimmed text of several lines, without NUL, which PostgreSQL can't store."""
    if "\0" in value:
        raise InvalidField(field, f"The {field} holds a NUL character.")
    return value.strip()


def clean_tier(value: int) -> int:
    if not 0 <= value <= MAX_TIER:
        raise InvalidField("tier", f"The tier must be a whole number from 0 to {MAX_TIER}, not {value}.")
    return value


def clean_moment(value: dt.datetime | None, *, field: str) -> dt.datetime | None:
    if value is not None and value.tzinfo is None:
        raise InvalidField(field, f"The {field} needs a time zone: write it as 2027-01-31T00:00:00Z.")
    return value
