"""One round trip to PostgreSQL: a text of several statements with its parameters, and the rows of each.

psycopg's cursors do more than a batch needs, for each result anew: with them, asking took twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import generators
from psycopg.adapt import Transformer
from psycopg.pq import Escaping, ExecStatus, abc

from keys.steps.statements import Row

_FINE = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


def ask(raw: psycopg.Connection[Any], text: str, params: Sequence[Any]) -> list[list[Row]]:
    """Raises what psycopg raises. The first statement that fails ends it; those before it have run."""
    escaping = Escaping(raw.pgconn)
    literals = tuple([_literal(escaping, param) for param in params])
    raw.pgconn.send_query(text.replace("%s", "%b").encode() % literals)
    results = raw.wait(generators.execute(raw.pgconn))
    for result in results:
        if result.status not in _FINE:
            raise psycopg.errors.error_from_result(result)
    reader = Transformer()  # not the connection's: Django's loader of stamps is slow, and its zone is ours, UTC
    found: list[list[Row]] = []
    for result in results:
        if result.ntuples:
            reader.set_pgresult(result)
            found.append(reader.load_rows(0, result.ntuples, tuple))
        else:
            found.append([])
    return found


def _literal(escaping: abc.Escaping, value: str | bytes | int | list[Any] | None) -> bytes:
    """Its type is the one that is wanted where it stands. A list may hold numbers and ids."""
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"'%d'" % value  # a minus sign would be an operator
    if isinstance(value, list):
        value = f"{{{','.join(map(str, value))}}}"
    written = value.encode() if isinstance(value, str) else value
    if b"\0" in written:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return bytes(escaping.escape_literal(written))
