"""The batch statements on PostgreSQL: many rows as one JSON text, several writes as one statement.

A round trip costs more than what it asks for. So the rows of a batch are one parameter, and what is read or written
together is one statement; `BEGIN` goes with the first. The texts never change, so that the server keeps their plans.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from keys.steps.statements import (
    ATTEMPT_COLUMNS,
    CLIENT_COLUMNS,
    IN_FLIGHT_COLUMNS,
    LEDGER_COLUMNS,
    PoolView,
    Row,
    Selections,
    Settled,
    Statements,
    candidate_texts,
)

_TYPES = {
    **dict.fromkeys(("id", "client_id", "key_id", "worker"), "uuid"),
    **dict.fromkeys(("created_at", "recorded_at", "started_at"), "timestamptz"),
    **dict.fromkeys(("stream", "flagged"), "boolean"),
    **dict.fromkeys(("n", "status", "attempts"), "smallint"),
    **dict.fromkeys(("latency_ms", "first_token_ms", "duration_ms"), "integer"),
    **dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), "bigint"),
    **dict.fromkeys(("cost_nano", "reserved_nano"), "bigint"),
}


def _rows_of(columns: Sequence[str], types: Mapping[str, str] = _TYPES) -> str:
    """A query that reads one JSON parameter, a list of lists, as rows of `columns`."""
    fields = (f"(r->>{n})::{types[name]}" if name in types else f"r->>{n}" for n, name in enumerate(columns))
    return f"SELECT {', '.join(fields)} FROM jsonb_array_elements(%s::jsonb) r"  # noqa: S608 - constants


def _insert(table: str, columns: Sequence[str], types: Mapping[str, str] = _TYPES) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) {_rows_of(columns, types)}"


_COLUMNS, _CONDITIONS, _ORDER = candidate_texts("%s")
_CHOSEN = f"SELECT k.id FROM keys_openrouterkey k WHERE {_CONDITIONS} {_ORDER}"  # noqa: S608 - constants
_LOCKED = (
    f"SELECT {_COLUMNS} FROM keys_openrouterkey k WHERE k.state = 'active' AND k.id IN "  # noqa: S608 - constants
    "({chosen}) ORDER BY k.id FOR NO KEY UPDATE"
)
_CANDIDATES = _LOCKED.format(chosen=_CHOSEN)
_CANDIDATES_COUNTED = (
    f"WITH chosen AS ({_CHOSEN}), locked AS ({_LOCKED.format(chosen='SELECT id FROM chosen')}) "  # noqa: S608
    "SELECT (SELECT count(*) FROM chosen), locked.* FROM (SELECT) AS once LEFT JOIN locked ON true"
)
_IDS = "string_to_array(%s, ',')::uuid[]"
_TOUCH = (
    "UPDATE keys_client SET last_used_at = %s WHERE id IN (SELECT id FROM keys_client "  # noqa: S608 - constants
    f"WHERE id = ANY({_IDS}) ORDER BY id FOR NO KEY UPDATE)"
)
_SAVE_SELECTIONS = (
    "WITH counted AS (UPDATE keys_pool SET turn = %s WHERE id = 1), "  # noqa: S608 - constants
    f"begun AS ({_insert('keys_inflight', IN_FLIGHT_COLUMNS)} ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id) "
    "UPDATE keys_openrouterkey k SET turn = chosen.turn, selections = selections + chosen.times, "
    "last_selected_at = %s FROM (SELECT (r->>0)::uuid AS id, (r->>1)::bigint AS turn, (r->>2)::bigint AS times "
    "FROM jsonb_array_elements(%s::jsonb) r) AS chosen WHERE k.id = chosen.id"
)
_SETTLE = (
    "WITH gone AS (DELETE FROM keys_inflight WHERE id IN (SELECT id FROM keys_inflight "  # noqa: S608 - constants
    f"WHERE id = ANY({_IDS}) ORDER BY id FOR UPDATE) RETURNING id), "
    f"fresh AS ({_insert('keys_requestlog', LEDGER_COLUMNS)} ON CONFLICT (id) DO NOTHING RETURNING id) "
    "SELECT (SELECT string_agg(encode(uuid_send(id), 'hex'), ',') FROM gone), "
    "(SELECT string_agg(encode(uuid_send(id), 'hex'), ',') FROM fresh)"
)
_ATTEMPT_TYPES = _TYPES | {"request_id": "uuid"}  # in the ledger it is a text
_ATTEMPTS = f"{_insert('keys_attempt', ATTEMPT_COLUMNS, _ATTEMPT_TYPES)} ON CONFLICT (request_id, n) DO NOTHING"
_MOVE = (
    f"WITH held AS (SELECT id FROM keys_inflight WHERE id = ANY({_IDS}) ORDER BY id FOR NO KEY UPDATE) "  # noqa: S608
    "UPDATE keys_inflight i SET key_id = moved.key_id FROM (SELECT (r->>0)::uuid AS id, (r->>1)::uuid AS key_id "
    "FROM jsonb_array_elements(%s::jsonb) r) AS moved WHERE i.id = moved.id AND i.id IN (SELECT id FROM held)"
)
_LOCK = "SELECT turn FROM keys_pool WHERE id = 1 FOR NO KEY UPDATE"
_CLIENTS = f"SELECT {CLIENT_COLUMNS} FROM keys_client WHERE digest = ANY(string_to_array(%s, ','))"  # noqa: S608
_ALIASES = "SELECT name, target FROM keys_modelalias WHERE name = ANY(%s)"


class PostgresStatements(Statements):
    """`owns_transaction`: BEGIN and COMMIT are sent from here, with the first and the last statement."""

    def __init__(
        self, connection: BaseDatabaseWrapper, raw: psycopg.Connection[Any], *, owns_transaction: bool, lazy_disk: bool
    ) -> None:
        super().__init__(connection, psycopg.Cursor(raw))
        self._raw = raw
        self._owns_transaction = owns_transaction
        self._lazy_disk = lazy_disk

    def stamp(self, value: dt.datetime) -> str:
        return value.isoformat()

    def _together(self, texts: Sequence[str], params: Sequence[Any]) -> list[list[Row]]:
        """Several statements in one round trip; the rows of each."""
        self._cursor, cursor = psycopg.ClientCursor(self._raw), self._cursor
        try:
            self._execute("; ".join(texts), params)
            found = [list(self._cursor.fetchall()) if self._cursor.description else []]
            while self._cursor.nextset():
                found.append(list(self._cursor.fetchall()) if self._cursor.description else [])
        finally:
            self._cursor = cursor
        return found

    @property
    def _has_begun(self) -> bool:
        return self._raw.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE

    def commit(self) -> None:
        if self._has_begun:
            self._execute("COMMIT")

    # -- admission ---------------------------------------------------------------------------------------------------
    def lock_pool(self) -> int:
        return int(self._rows(_LOCK)[0][0])

    def open_pool(self, digests: Sequence[str], names: Sequence[str]) -> PoolView:
        before = ["BEGIN"] if self._owns_transaction else []
        if self._lazy_disk:
            before.append("SET LOCAL synchronous_commit = off")
        found = self._together([*before, _LOCK, _CLIENTS, _ALIASES], [",".join(digests), list(names)])
        ((turn,),), clients, aliases = found[-3:]
        return PoolView(turn, clients, dict(aliases))

    def save_turn(self, turn: int) -> None:
        self._execute("UPDATE keys_pool SET turn = %s WHERE id = 1", [turn])

    def read_clients(self, digests: Sequence[str]) -> list[Row]:
        return self._rows(_CLIENTS, [",".join(digests)])

    def read_aliases(self, names: Sequence[str]) -> dict[str, str]:
        return dict(self._rows(_ALIASES, [list(names)]))

    def touch_clients(self, client_ids: Sequence[UUID], now: dt.datetime) -> None:
        self._execute(_TOUCH, [self.stamp(now), _joined(client_ids)])

    def _read_candidates(self, params: Sequence[Any]) -> list[Row]:
        """Fewer than there are when a chosen key was taken out of service while we waited for its lock."""
        return sorted(self._rows(_CANDIDATES, params), key=_in_turn)

    def _read_all_candidates(self, params: Sequence[Any]) -> list[Row]:
        of_columns, of_conditions = params[:2], params[2:]
        chosen, rows = -1, list[Row]()
        while len(rows) != chosen:
            found = self._rows(_CANDIDATES_COUNTED, [*of_conditions, *of_columns])
            chosen, rows = found[0][0], [row[1:] for row in found if row[1] is not None]
        return sorted(rows, key=_in_turn)

    def read_due_cooldowns(self, key_id: UUID, account_id: UUID | None, variant: str) -> list[Row]:
        return self._rows(
            "SELECT id, account_id, pattern FROM keys_cooldown WHERE cleared_at IS NULL "
            "AND (key_id = %s OR account_id = %s) AND pattern IN ('', %s)",
            [self.uuid(key_id), self.uuid(account_id), variant],
        )

    def begin_trial(self, cooldown_ids: Sequence[int], trial: UUID, now: dt.datetime) -> None:
        text = "UPDATE keys_cooldown SET trial = %s, trial_at = %s WHERE id = ANY(%s)"
        self._execute(text, [trial.hex, self.stamp(now), list(cooldown_ids)])

    def save_selections(
        self, selections: Selections, admitted: Sequence[Row], *, now: dt.datetime, is_last: bool
    ) -> None:
        keys = json.dumps([(key.hex, turn, times) for key, turn, times in selections.keys])
        params = [selections.turn, json.dumps(admitted), self.stamp(now), keys]
        if is_last and self._owns_transaction:
            self._together([_SAVE_SELECTIONS, "COMMIT"], params)
        else:
            self._execute(_SAVE_SELECTIONS, params)

    # -- in flight and ledger ----------------------------------------------------------------------------------------
    def move_in_flight(self, moved: Sequence[tuple[UUID, UUID]]) -> None:
        rows = json.dumps([(request.hex, key.hex) for request, key in moved])
        self._execute(_MOVE, [_joined([request for request, _ in moved]), rows])

    def settle_rows(self, ids: Sequence[str], rows: Sequence[Row]) -> Settled:
        params = [",".join(ids), json.dumps(rows)]
        if self._has_begun or not self._owns_transaction:
            ((in_flight, inserted),) = self._rows(_SETTLE, params)
        else:  # all there is to do
            _, ((in_flight, inserted),), _ = self._together(["BEGIN", _SETTLE, "COMMIT"], params)
        return Settled(_split(in_flight), _split(inserted))

    def insert_attempts(self, rows: Sequence[Row]) -> None:
        self._execute(_ATTEMPTS, [json.dumps(rows)])


def _in_turn(row: Row) -> Row:
    return row[5], row[6], row[8], row[0]


def _joined(ids: Sequence[UUID]) -> str:
    return ",".join(each.hex for each in ids)


def _split(ids: str | None) -> set[str]:
    return set(ids.split(",")) if ids else set()
