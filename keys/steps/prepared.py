"""Statements that a PostgreSQL server keeps: parsed and planned once for each connection, then only named.

Planning takes longer than running them. `EXECUTE` goes with `BEGIN` and `COMMIT` in one text, which the statements of
the protocol itself can't. What is prepared outlives a rollback, and ends with its connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg


class Prepared:
    """`types` of its parameters, which `query` calls $1, $2 …"""

    def __init__(self, name: str, types: tuple[str, ...], query: str) -> None:
        takes, marks = (f" ({', '.join(each)})" if types else "" for each in (types, ["%s"] * len(types)))
        self.declaration = f"PREPARE {name}{takes} AS {query}"
        self._execution = f"EXECUTE {name}{marks}"

    def call(self, *params: Any) -> Call:
        return Call(self._execution, params, self)


class Call(NamedTuple):
    """One statement with its parameters, and what has to be prepared for it."""

    text: str
    params: Sequence[Any] = ()
    prepared: Prepared | None = None


_KNOWN: WeakKeyDictionary[psycopg.Connection[Any], set[Prepared | None]] = WeakKeyDictionary()


def known_to(raw: psycopg.Connection[Any]) -> set[Prepared | None]:
    """What the server keeps for this connection; who prepares more adds it. None is known to all."""
    return _KNOWN.setdefault(raw, {None})
