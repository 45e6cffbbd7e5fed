"""Statements that a PostgreSQL server keeps: parsed and planned once for each connection, then only named.

Planning takes longer than running them. `EXECUTE` goes with `BEGIN` and `COMMIT` in one text, which the statements of
the protocol itself can't. What is prepared outlives a rollback, and ends with its connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import psycopg


@dataclass(frozen=True, slots=True)
class Prepared:
    """`types` of its parameters, which `query` calls $1, $2 …"""

    name: str
    types: tuple[str, ...]
    query: str

    @property
    def declaration(self) -> str:
        types = f" ({', '.join(self.types)})" if self.types else ""
        return f"PREPARE {self.name}{types} AS {self.query}"

    def call(self, *params: Any) -> Call:
        marks = f" ({', '.join(['%s'] * len(params))})" if params else ""
        return Call(f"EXECUTE {self.name}{marks}", params, self)


@dataclass(frozen=True, slots=True)
class Call:
    """One statement with its parameters, and what has to be prepared for it."""

    text: str
    params: Sequence[Any] = ()
    prepared: Prepared | None = None


_KNOWN: WeakKeyDictionary[psycopg.Connection[Any], set[str]] = WeakKeyDictionary()


def missing(raw: psycopg.Connection[Any], calls: Sequence[Call]) -> list[Prepared]:
    """What the server does not keep yet for this connection."""
    known = _KNOWN.get(raw, ())
    asked = dict.fromkeys(call.prepared for call in calls if call.prepared is not None)
    return [prepared for prepared in asked if prepared.name not in known]


def note(raw: psycopg.Connection[Any], prepared: Prepared) -> None:
    _KNOWN.setdefault(raw, set()).add(prepared.name)
