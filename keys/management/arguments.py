"""How the commands read what is typed: keys and clients by name, moments, periods, secrets. Raises CommandError."""

from __future__ import annotations

import datetime as dt
import getpass
import re
import sys
import uuid
from pathlib import Path

from django.core.management.base import CommandError
from django.utils.dateparse import parse_date, parse_datetime

from keys.models import Client, OpenRouterKey
from keys.sealing import Sealed

MAX_SECRET_BYTES = 4096
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def find_key(text: str) -> OpenRouterKey:
    """By name, or by id."""
    found = OpenRouterKey.objects.filter(**_identity(text)).first()
    if found is None:
        raise CommandError(f"There is no key {text!r}: `keys list` shows their names.")
    return found


def find_client(text: str) -> Client:
    """By name, or by id."""
    found = Client.objects.filter(**_identity(text)).first()
    if found is None:
        raise CommandError(f"There is no client {text!r}: `clients list` shows their names.")
    return found


def read_secret(file: str | None) -> Sealed:
    """An OpenRouter key from a file, from stdin (`-` or nothing), or asked for at a terminal: never an argument."""
    if file in (None, "-") and sys.stdin.isatty():
        return Sealed(getpass.getpass("OpenRouter key (it is not shown): "))
    try:
        if file in (None, "-"):
            content = sys.stdin.buffer.read(MAX_SECRET_BYTES + 1)
        else:
            with Path(str(file)).open("rb") as opened:
                content = opened.read(MAX_SECRET_BYTES + 1)
    except OSError as exc:
        raise CommandError(f"{file} can't be read: {exc.strerror}.") from exc
    if len(content) > MAX_SECRET_BYTES:
        raise CommandError("This is too long to be one OpenRouter key: for several use import_keys.")
    return Sealed(content.decode("utf-8-sig", "replace"))


def parse_moment(text: str, option: str) -> dt.datetime:
    """A date or a time in ISO form; UTC if it does not say."""
    try:
        day = parse_date(text)
        moment = parse_datetime(text) if day is None else dt.datetime.combine(day, dt.time(), dt.UTC)
    except ValueError:
        moment = None
    if moment is None:
        raise CommandError(f"{option} must be a date or time as 2027-01-31 or 2027-01-31T12:00:00Z, not {text!r}.")
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


def parse_length(text: str, option: str) -> dt.timedelta:
    """`0`, `30m`, `24h`, `7d` or `2w`."""
    found = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if text == "0":
        return dt.timedelta()
    if found is None:
        raise CommandError(f"{option} must be a length of time as 30m, 24h, 7d or 2w, not {text!r}.")
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def parse_day(text: str, option: str, today: dt.date) -> dt.date:
    """A UTC day; `7d` and `2w` count back so that today is the last of so many days."""
    if re.fullmatch(r"\d{1,5}[dw]", text):
        length = parse_length(text, option)
        return today - max(length - dt.timedelta(days=1), dt.timedelta())
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{option} must be a day as 2027-01-31, or 7d or 2w, not {text!r}.") from None


def _identity(text: str) -> dict[str, object]:
    try:
        return {"pk": uuid.UUID(text)}
    except ValueError:
        return {"name": text}
