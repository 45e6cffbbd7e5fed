"""Our database, read from outside the service: by SQLite's or PostgreSQL's own client, not by the code under test."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance.crash.ledgers import Row


class Database:
    """`url` empty: the SQLite file under `var_dir`."""

    def __init__(self, var_dir: Path, url: str) -> None:
        self._file = var_dir / "opensvm.sqlite3"
        self._url = url

    def rows(self) -> list[Row]:
        columns = "request_id, status, error_type, cost_nano, cost_source, generation_id"
        return [Row(*row) for row in self._read(f"SELECT {columns} FROM keys_requestlog")]  # noqa: S608  # a constant

    def in_flight(self) -> int:
        return self._count("keys_inflight")

    def unknown_costs(self) -> int:
        """Of those that upstream can be asked for."""
        return self._count("keys_requestlog WHERE cost_source = 'unknown' AND generation_id <> ''")

    def open_cooldowns(self) -> int:
        return self._count("keys_cooldown WHERE cleared_at IS NULL")

    def key_states(self) -> set[str]:
        return {str(state) for (state,) in self._read("SELECT DISTINCT state FROM keys_openrouterkey")}

    def _count(self, what: str) -> int:
        return int(self._read(f"SELECT count(*) FROM {what}")[0][0])  # noqa: S608  # our own constants

    def _read(self, sql: str) -> list[tuple[Any, ...]]:
        if self._url:
            with psycopg.connect(self._url) as connection:
                return connection.execute(sql).fetchall()  # type: ignore[call-overload,no-any-return]
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=20)) as file:
            return file.execute(sql).fetchall()
