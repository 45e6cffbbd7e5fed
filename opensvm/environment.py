"""Strict readers of environment variables, for `opensvm.settings` alone.

A value that can't be understood raises `SettingError`; its message names the variable and never repeats a value
that may be a secret.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T", int, float)
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+")  # lower case, as browsers write them
_FORBIDDEN_HEADERS = {"authorization", "host", "content-length", "transfer-encoding", "connection", "x-api-key"}


class SettingError(ImproperlyConfigured):
    """A setting cannot be understood."""


OLDEST_SQLITE = (3, 35)  # RETURNING and UPDATE … FROM


def check_sqlite(version: tuple[int, ...]) -> None:
    """Raises `SettingError` for a SQLite that lacks what the batches are written in."""
    if version < OLDEST_SQLITE:
        oldest, found = (".".join(map(str, numbers)) for numbers in (OLDEST_SQLITE, version))
        raise SettingError(
            f"This Python has SQLite {found}; {oldest} is needed. Use a newer Python, or PostgreSQL by DATABASE_URL."
        )


class Environment:
    """Reads one mapping of variables; an empty value counts as unset."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables

    def text(self, name: str, default: str) -> str:
        return self._variables.get(name, "").strip() or default

    def path(self, name: str, default: Path, *, base: Path) -> Path:
        """A path; relative ones are meant from `base`, the project's folder."""
        value = self._variables.get(name, "").strip()
        return base / Path(value).expanduser() if value else default

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        return self._number(name, default, int, "a whole number", low, high)

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        return self._number(name, default, float, "a number", low, high)

    def _number(self, name: str, default: T, parse: Callable[[str], T], kind: str, low: T, high: T) -> T:
        value = self._variables.get(name, "").strip()
        if not value:
            return default
        try:
            number = parse(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise SettingError(f"{name} must be {kind} from {low} to {high}, not {value!r}.")
        return number

    def flag(self, name: str, default: bool) -> bool:
        value = self._variables.get(name, "").strip().lower()
        if not value:
            return default
        if value in {"1", "true", "yes", "on"}:
            return True
        if value in {"0", "false", "no", "off"}:
            return False
        raise SettingError(f"{name} must be 1 or 0, not {value!r}.")

    def http_url(self, name: str, default: str) -> str:
        """An http or https URL without a trailing slash, user, query or fragment."""
        value = self.text(name, default).rstrip("/")
        try:
            parts = urlsplit(value)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid or "@" in parts.netloc or parts.query or parts.fragment:
            raise SettingError(f"{name} must be an http:// or https:// address without user, query or fragment.")
        return value

    def url(self, name: str, schemes: Collection[str]) -> str:
        """A URL of one of `schemes`, or empty. It may hold a password, so it is never repeated."""
        value = self._variables.get(name, "").strip()
        scheme, separator, rest = value.partition("://")
        if value and (not separator or scheme not in schemes or not rest):
            known = ", ".join(f"{scheme}://" for scheme in sorted(schemes))
            raise SettingError(f"{name} must begin with one of {known} and name a server.")
        return value

    def networks(self, name: str) -> tuple[IPNetwork, ...]:
        """Addresses and networks, separated by commas."""
        entries = [entry.strip() for entry in self._variables.get(name, "").split(",") if entry.strip()]
        try:
            return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)
        except ValueError as exc:
            raise SettingError(f"{name} must be IP addresses or networks, separated by commas: {exc}.") from exc

    def origins(self, name: str) -> frozenset[str]:
        """Origins as browsers send them (scheme, host, port), separated by commas; or `*`."""
        entries = [entry.strip() for entry in self._variables.get(name, "").split(",") if entry.strip()]
        for entry in entries:
            if entry != "*" and not _ORIGIN.fullmatch(entry):
                raise SettingError(f"{name} must be origins such as https://app.example.com, or *; not {entry!r}.")
        return frozenset(entries)

    def headers(self, name: str) -> dict[str, str]:
        """A JSON object of header names and values; never Authorization or Host."""
        value = self._variables.get(name, "").strip()
        if not value:
            return {}
        try:
            found = json.loads(value)
        except ValueError as exc:
            raise SettingError(f"{name} must be a JSON object of header names and values: {exc}.") from exc
        if not isinstance(found, dict) or not all(isinstance(item, str) for item in found.values()):
            raise SettingError(f"{name} must be a JSON object of header names and texts.")
        for header, content in found.items():
            if not _HEADER_NAME.match(header) or not content.isprintable() or not content.isascii():
                raise SettingError(f"{name} has a header that can't be sent: {header!r}.")
            if header.lower() in _FORBIDDEN_HEADERS:
                raise SettingError(f"{name} must not set {header}: the service sets it.")
        return found
