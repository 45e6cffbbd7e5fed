"""The batch statements on SQLite: many rows as one list of VALUES.

Each step of a statement gives the interpreter's lock away, and a busy event loop takes up to 5 ms to give it back: so
a statement has as few steps as can be. Lists are filled up to one of a few sizes, so that the few texts there are
stay compiled in the connection's cache; with empty texts, which no id is: Python's adapter looks for a protocol of
whatever is not plainly a text, a number or bytes, also of None and of booleans, which takes longer than the rest of a
row. Nobody else writes between `BEGIN IMMEDIATE` and `COMMIT`.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from keys.steps.statements import (
    ATTEMPT_COLUMNS,
    CLIENT_COLUMNS,
    IN_FLIGHT_COLUMNS,
    LEDGER_COLUMNS,
    CandidateQuery,
    PoolView,
    Row,
    Selections,
    Settled,
    Statements,
    candidate_texts,
    rfc3339,
)
from keys.uuid7 import held_hex, hex_of

_MOST_ROWS = 256  # in one statement; 26 values each are below SQLite's limit of 32,766
_COLUMNS, _CONDITIONS, _ORDER = candidate_texts(  # without statistics, all of a key's history would be read
    "?",
    open_of_key=" INDEXED BY cooldown_one_open_per_key",
    open_of_account=" INDEXED BY cooldown_one_open_per_account",
)
CANDIDATES = f"SELECT {_COLUMNS} FROM keys_openrouterkey k WHERE {_CONDITIONS} {_ORDER}"  # noqa: S608 - constants
_SAVE_TURN = "UPDATE keys_pool SET turn = ? WHERE id = 1"


class SqliteStatements(Statements):
    def stamp(self, value: dt.datetime) -> str:
        """Naive UTC."""
        written = rfc3339(value if value.tzinfo is dt.UTC else value.astimezone(dt.UTC))
        return f"{written[:10]} {written[11:-1]}"

    # -- admission ---------------------------------------------------------------------------------------------------
    def lock_pool(self) -> int:
        return int(self._rows("SELECT turn FROM keys_pool WHERE id = 1")[0][0])

    def open_pool(
        self, digests: Sequence[str], names: Sequence[str], candidates: CandidateQuery | None = None
    ) -> PoolView:
        rows = self._rows(_open_pool(_size(len(digests)), _size(len(names))), [*_filled(digests), *_filled(names)])
        by_kind: dict[int, list[Row]] = {0: [], 1: [], 2: []}
        for kind, *values in rows:
            by_kind[kind].append(tuple(values))
        ((turn, *_),), clients, aliases = by_kind.values()
        read = self.read_candidates(candidates) if candidates is not None else []
        return PoolView(turn, clients, {name: target for name, target, *_ in aliases}, read)

    def save_turn(self, turn: int) -> None:
        self._execute(_SAVE_TURN, [turn])

    def read_clients(self, digests: Sequence[str]) -> list[Row]:
        text = f"SELECT {CLIENT_COLUMNS} FROM keys_client WHERE digest IN "  # noqa: S608 - a constant
        return self._rows(text + _marks(_size(len(digests))), _filled(digests))

    def read_aliases(self, names: Sequence[str]) -> dict[str, str]:
        text = "SELECT name, target FROM keys_modelalias WHERE name IN "
        return dict(self._rows(text + _marks(_size(len(names))), _filled(names)))

    def touch_clients(self, client_ids: Sequence[UUID], now: dt.datetime) -> None:
        ids = [client.hex for client in client_ids]
        text = "UPDATE keys_client SET last_used_at = ? WHERE id IN "
        self._execute(text + _marks(_size(len(ids))), [self.stamp(now), *_filled(ids)])

    def read_candidates(self, asked: CandidateQuery, *, again: bool = False) -> list[Row]:
        return self._rows(CANDIDATES, self._candidate_params(asked))

    def read_due_cooldowns(self, key_id: UUID, account_id: UUID | None, variant: str) -> list[Row]:
        return self._rows(
            "SELECT id, account_id, pattern FROM keys_cooldown WHERE cleared_at IS NULL "
            "AND (key_id = ? OR account_id = ?) AND pattern IN ('', ?)",
            [self.uuid(key_id), self.uuid(account_id), variant],
        )

    def begin_trial(self, cooldown_ids: Sequence[int], trial: UUID, now: dt.datetime) -> None:
        text = "UPDATE keys_cooldown SET trial = ?, trial_at = ? WHERE id IN "
        params = [trial.hex, self.stamp(now), *_filled(cooldown_ids)]
        self._execute(text + _marks(_size(len(cooldown_ids))), params)

    def save_selections(
        self, selections: Selections, admitted: Sequence[Row], *, worker: UUID, now: dt.datetime
    ) -> None:
        if selections.keys:
            self._execute(_SAVE_TURN, [selections.turn])
            keys = [(held_hex(key.int), turn, times) for key, turn, times in selections.keys]
            self._execute(_save_keys(_size(len(keys))), [self.stamp(now), *_flat(keys)])
        if admitted:
            rows = [
                (hex_of(row), held_hex(client.int), held_hex(key.int), model) for row, client, key, model in admitted
            ]
            self._execute(_begin_flights(_size(len(rows))), [self.stamp(now), held_hex(worker.int), *_flat(rows)])

    # -- in flight and ledger ----------------------------------------------------------------------------------------
    def move_in_flight(self, moved: Sequence[tuple[UUID, UUID]]) -> None:
        """One statement for each."""
        for request, key in moved:
            self._execute("UPDATE keys_inflight SET key_id = ? WHERE id = ?", [key.hex, request.hex])

    def settle_rows(
        self, rows: Sequence[Row], *, recorded_at: dt.datetime, is_flagged: bool = False, is_last: bool = False
    ) -> Settled | None:
        by_id = {hex_of(row[0]): row for row in rows}
        filled, size = _filled([*by_id]), _size(len(by_id))
        self._execute(_take_out_all(size), [*filled, len(by_id)])
        settled = None
        if self._cursor.rowcount < len(by_id):
            ((in_flight, known),) = self._rows(_state(size), filled)
            for row_id in known.split(",") if known else ():
                del by_id[row_id]
            self._execute(_take_out(size), filled)
            settled = Settled(_uuids(in_flight.split(",") if in_flight else ()), _uuids(by_id))
        new = [*by_id.items()]
        for start in range(0, len(new), _MOST_ROWS):
            some = new[start : start + _MOST_ROWS]
            values: list[Any] = [self.stamp(recorded_at), int(is_flagged)]
            for row_id, (_, client, key, at, *plain) in some:
                values += row_id, held_hex(client.int), None if key is None else held_hex(key.int), self.stamp(at)
                values += plain
            size = _size(len(some))
            values += itertools.repeat("", (size - len(some)) * len(LEDGER_COLUMNS))
            self._execute(_write_ledger(size), values)
        return settled

    def insert_attempts(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), _MOST_ROWS):
            some = rows[start : start + _MOST_ROWS]
            self._execute(_write_attempts(_size(len(some))), _flat(some))


@functools.lru_cache(512)
def _size(count: int) -> int:
    """The next power of two, or three quarters of it."""
    power = 1 << max(count - 1, 0).bit_length()
    return power * 3 // 4 if power > 2 and count <= power * 3 // 4 else power


def _filled(values: Sequence[Any]) -> list[Any]:
    count = len(values)
    return [*values, *itertools.repeat("", _size(count) - count)]


def _flat(rows: Sequence[Row]) -> list[Any]:
    count = len(rows)
    return [*itertools.chain.from_iterable(rows), *itertools.repeat("", (_size(count) - count) * len(rows[0]))]


@functools.lru_cache
def _marks(size: int) -> str:
    return f"({', '.join(['?'] * size)})"


def _insert(table: str, columns: Sequence[str], size: int, **shared: str) -> str:
    """The first column of a row is an id, which is never empty: what is, only fills the list up.

    shared: columns with the same value in all rows, and what it is; parameters that come first.
    """
    values = ", ".join([_marks(len(columns))] * size)
    return (
        f"INSERT INTO {table} ({', '.join([*shared, *columns])}) "  # noqa: S608 - constants
        f"SELECT {', '.join([*shared.values(), '*'])} FROM (VALUES {values}) WHERE column1 <> ''"
    )


@functools.lru_cache
def _begin_flights(size: int) -> str:
    text = _insert("keys_inflight", IN_FLIGHT_COLUMNS, size, started_at="?", worker="?", reserved_nano="0")
    return f"{text} ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id"


@functools.lru_cache
def _write_ledger(size: int) -> str:
    return _insert("keys_requestlog", LEDGER_COLUMNS, size, recorded_at="?", flagged="?")


@functools.lru_cache
def _write_attempts(size: int) -> str:
    return f"{_insert('keys_attempt', ATTEMPT_COLUMNS, size)} ON CONFLICT (request_id, n) DO NOTHING"


@functools.lru_cache
def _open_pool(digests: int, names: int) -> str:
    """Rows of three kinds, as wide as a client's."""
    nothing = ", NULL" * CLIENT_COLUMNS.count(",")
    return (
        f"SELECT 0, turn{nothing} FROM keys_pool WHERE id = 1 "  # noqa: S608 - constants
        f"UNION ALL SELECT 1, {CLIENT_COLUMNS} FROM keys_client WHERE digest IN {_marks(digests)} "
        f"UNION ALL SELECT 2, name, target{nothing.removesuffix(', NULL')} FROM keys_modelalias "
        f"WHERE name IN {_marks(names)}"
    )


@functools.lru_cache
def _save_keys(size: int) -> str:
    return (
        "UPDATE keys_openrouterkey SET turn = chosen.column2, selections = selections + chosen.column3, "  # noqa: S608
        f"last_selected_at = ? FROM (VALUES {', '.join(['(?, ?, ?)'] * size)}) AS chosen "
        "WHERE keys_openrouterkey.id = chosen.column1"
    )


@functools.lru_cache
def _take_out(size: int) -> str:
    return f"DELETE FROM keys_inflight WHERE id IN {_marks(size)}"  # noqa: S608 - constants


@functools.lru_cache
def _take_out_all(size: int) -> str:
    """Takes out all of the ids if all are in flight and none is in the ledger, else nothing: it is told by the count.

    To ask first costs more, as each list of `IN` makes a table of its own.
    """
    ids = f"(VALUES {', '.join([f'(?{n})' for n in range(1, size + 1)])}) AS asked"
    return (
        f"DELETE FROM keys_inflight WHERE id IN ({_numbered(size)}) AND ?{size + 1} = "  # noqa: S608 - constants
        f"(SELECT count(*) FROM {ids} CROSS JOIN keys_inflight i ON i.id = asked.column1) "
        f"AND NOT EXISTS (SELECT 1 FROM {ids} CROSS JOIN keys_requestlog l ON l.id = asked.column1)"
    )


@functools.lru_cache
def _state(size: int) -> str:
    """Which of the ids are in flight, and which are in the ledger."""
    ids = _numbered(size)
    return (
        f"SELECT (SELECT group_concat(id) FROM keys_inflight WHERE id IN ({ids})), "  # noqa: S608 - constants
        f"(SELECT group_concat(id) FROM keys_requestlog WHERE id IN ({ids}))"
    )


def _numbered(size: int) -> str:
    return ", ".join([f"?{n}" for n in range(1, size + 1)])


def _uuids(stored: Iterable[str]) -> set[UUID]:
    return set(map(UUID, stored))
