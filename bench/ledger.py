"""Counts what the service wrote, in its own database, past its own code."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.errors import BenchError

_COUNTS = (
    "SELECT (SELECT count(*) FROM keys_requestlog), (SELECT count(*) FROM keys_requestlog WHERE status = 200), "
    "(SELECT count(*) FROM keys_inflight), (SELECT count(*) FROM keys_cooldown)"
)
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Counts:
    """`answered`: rows of requests whose answer was finished. `benched`: cooldowns that ever began."""

    rows: int
    answered: int
    in_flight: int
    benched: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """`database`: SQLite's file, or the URL of a PostgreSQL."""

    database: Path | str

    def counts(self) -> Counts:
        if isinstance(self.database, Path):
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
                return Counts(*connection.execute(_COUNTS).fetchone())
        with psycopg.connect(self.database) as postgres:
            row = postgres.execute(_COUNTS).fetchone()
            assert row is not None
            return Counts(*row)

    def settled_counts(self) -> Counts:
        """Once nothing is in flight any more; what wrk cuts off at its end is settled a moment later."""
        end = time.monotonic() + _SETTLE_SECONDS
        while (counts := self.counts()).in_flight:
            if time.monotonic() > end:
                raise BenchError(f"{counts.in_flight} requests were in flight {_SETTLE_SECONDS:g} s after the load.")
            time.sleep(0.02)
        return counts


def complaint(before: Counts, after: Counts, *, answered: int, connections: int) -> str:
    """What is wrong with the ledger after a run, in which wrk cut off at most one request on each connection."""
    rows, finished = after.rows - before.rows, after.answered - before.answered
    if after.benched:
        return "a key was benched"
    if not answered <= finished <= rows <= answered + connections:
        return f"{answered} answers came, but {finished} rows say so, of {rows} in all ({connections} connections)"
    return ""
