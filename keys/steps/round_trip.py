"""One round trip to PostgreSQL: a text of several statements with its parameters, and the rows of each.

psycopg's cursors do more than a batch needs, for each result anew: with them, asking took twice as long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators
from psycopg.adapt import Transformer
from psycopg.pq import Escaping, ExecStatus, abc

from keys.steps.prepared import Prepared
from keys.steps.statements import Row

_NUL, _QUOTE, _BACKSLASH = b"\0'\\"  # numbers: bytes are searched for one ten times as fast as for bytes
_FINE = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


class Session:
    """What is kept for as long as a connection is.

    prepared: what the server keeps for it; who prepares more adds it. None is known to all.
    """

    def __init__(self) -> None:
        self.prepared: set[Prepared | None] = {None}
        # Not the connection's: Django's loader of stamps is slow, and its zone is ours, UTC.
        self.reader = Transformer()


_SESSIONS: WeakKeyDictionary[psycopg.Connection[Any], Session] = WeakKeyDictionary()


def session_of(raw: psycopg.Connection[Any]) -> Session:
    session = _SESSIONS.get(raw)
    if session is None:
        session = _SESSIONS[raw] = Session()
    return session


def ask(raw: psycopg.Connection[Any], text: str, params: Sequence[Any], session: Session) -> list[list[Row]]:
    """Raises what psycopg raises. The first statement that fails ends it; those before it have run."""
    pgconn, reader = raw.pgconn, session.reader
    pgconn.send_query(_template(text) % tuple([_literal(pgconn, param) for param in params]))
    results = raw.wait(generators.execute(pgconn))
    for result in results:
        if result.status not in _FINE:
            raise psycopg.errors.error_from_result(result)
    found: list[list[Row]] = []
    for result in results:
        if count := result.ntuples:
            reader.set_pgresult(result)
            found.append(reader.load_rows(0, count, tuple))
        else:
            found.append([])
    return found


@functools.lru_cache(256)
def _template(text: str) -> bytes:
    return text.replace("%s", "%b").encode()


def _literal(pgconn: abc.PGconn, value: str | bytes | int | list[Any] | None) -> bytes:
    """Its type is the one that is wanted where it stands. A list may hold numbers and ids."""
    if isinstance(value, int):
        return b"'%d'" % value  # a minus sign would be an operator
    if value is None:
        return b"NULL"
    if isinstance(value, list):
        value = f"{{{','.join(map(str, value))}}}"
    written = value.encode() if isinstance(value, str) else value
    if _NUL in written:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    if _QUOTE in written or _BACKSLASH in written:
        return bytes(Escaping(pgconn).escape_literal(written))
    return b"'%b'" % written  # UTF-8, so these bytes are in no other character; libpq looks at each of thousands
