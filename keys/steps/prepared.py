"""Statements that a PostgreSQL server keeps: parsed and planned once for each connection, then only named.

Planning takes longer than running them. `EXECUTE` goes with `BEGIN` and `COMMIT` in one text, which the statements of
the protocol itself can't. What is prepared outlives a rollback, and ends with its connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Prepared:
    """`types` of its parameters, which `query` calls $1, $2 …"""

    def __init__(self, name: str, types: tuple[str, ...], query: str) -> None:
        takes, marks = (f" ({', '.join(each)})" if types else "" for each in (types, ["%s"] * len(types)))
        self.declaration = f"PREPARE {name}{takes} AS {query}"
        self._execution = f"EXECUTE {name}{marks}"

    def call(self, *params: Any) -> Call:
        return Call(self._execution, params, self)


class Call(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One statement with its parameters, and what has to be prepared for it. A batch makes half a dozen."""

    text: str
    params: Sequence[Any] = ()
    prepared: Prepared | None = None
