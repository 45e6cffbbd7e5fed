"""The batch statements on PostgreSQL: many rows as one JSON text, several writes as one statement.

A round trip costs more than what it asks for. So the rows of a batch are one parameter, what is read or written
together is one statement, and what answers nothing goes with what follows: `BEGIN` with the first, `COMMIT` with the
last. What every request asks is prepared.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from keys.steps.prepared import Call, Prepared
from keys.steps.round_trip import ask, session_of
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
from keys.uuid7 import held_hex

_TYPES = {
    **dict.fromkeys(("id", "client_id", "key_id"), "uuid"),
    "created_at": "timestamptz",
    "stream": "boolean",
    **dict.fromkeys(("n", "status", "attempts"), "smallint"),
    **dict.fromkeys(("latency_ms", "first_token_ms", "duration_ms"), "integer"),
    **dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), "bigint"),
    "cost_nano": "bigint",
}


def _insert(mark: str, table: str, columns: Sequence[str], types: Mapping[str, str] = _TYPES, **shared: str) -> str:
    """Reads one JSON parameter, a list of lists, as rows of `columns`. shared: what is the same in all of them."""
    fields = [f"(r->>{n})::{types[name]}" if name in types else f"r->>{n}" for n, name in enumerate(columns)]
    return (
        f"INSERT INTO {table} ({', '.join([*columns, *shared])}) "  # noqa: S608 - constants
        f"SELECT {', '.join([*fields, *shared.values()])} FROM jsonb_array_elements({mark}::jsonb) r"
    )


_IDLE = psycopg.pq.TransactionStatus.IDLE
_BEGIN = Call("BEGIN")
_LAZILY = Call("SET LOCAL synchronous_commit = off")
_COMMIT = Call("COMMIT")
_LOCK = Prepared("opensvm_lock", (), "SELECT turn FROM keys_pool WHERE id = 1 FOR NO KEY UPDATE")
_CLIENTS = Prepared(
    "opensvm_clients",
    ("text",),
    f"SELECT {CLIENT_COLUMNS} FROM keys_client WHERE digest = ANY(string_to_array($1, ','))",  # noqa: S608 - constants
)
_ALIASES = Prepared(
    "opensvm_aliases",
    ("jsonb",),
    "SELECT name, target FROM keys_modelalias WHERE name = ANY(ARRAY(SELECT jsonb_array_elements_text($1)))",
)

_COLUMNS, _CONDITIONS, _ORDER = candidate_texts("$", fence=" OFFSET 0")
_CHOSEN = f"SELECT k.id FROM keys_openrouterkey k WHERE {_CONDITIONS} {_ORDER}"  # noqa: S608 - constants
_LOCKED = (
    f"SELECT {_COLUMNS}, k.created_at FROM keys_openrouterkey k WHERE k.state = 'active' AND k.id = "  # noqa: S608
    "ANY(ARRAY({chosen})) ORDER BY k.id FOR NO KEY UPDATE"
)
_ASKED = ("text", "timestamptz", "timestamptz", "bigint")
_CANDIDATES = Prepared("opensvm_candidates", _ASKED, _LOCKED.format(chosen=_CHOSEN))
_CANDIDATES_COUNTED = Prepared(
    "opensvm_candidates_counted",
    _ASKED,
    f"WITH chosen AS ({_CHOSEN}), locked AS ({_LOCKED.format(chosen='SELECT id FROM chosen')}) "  # noqa: S608
    "SELECT (SELECT count(*) FROM chosen), locked.* FROM (SELECT) AS once LEFT JOIN locked ON true",
)
_SAVE_SELECTIONS = Prepared(
    "opensvm_save_selections",
    ("bigint", "jsonb", "timestamptz", "uuid", "uuid[]", "bigint[]", "bigint[]"),
    "WITH counted AS (UPDATE keys_pool SET turn = $1 WHERE id = 1), "  # noqa: S608 - constants
    f"begun AS ({_insert('$2', 'keys_inflight', IN_FLIGHT_COLUMNS, started_at='$3', worker='$4', reserved_nano='0')} "
    "ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id) "
    "UPDATE keys_openrouterkey k SET turn = chosen.turn, selections = selections + chosen.times, "
    "last_selected_at = $3 FROM unnest($5, $6, $7) AS chosen (id, turn, times) "
    "WHERE k.id = chosen.id AND k.id = ANY($5)",
)
_SETTLE = Prepared(
    "opensvm_settle",
    ("jsonb", "timestamptz", "boolean"),
    "WITH gone AS (DELETE FROM keys_inflight WHERE id IN (SELECT id FROM keys_inflight "  # noqa: S608 - constants
    "WHERE id = ANY(ARRAY(SELECT (r->>0)::uuid FROM jsonb_array_elements($1) r)) ORDER BY id FOR UPDATE) "
    f"RETURNING id), fresh AS ({_insert('$1', 'keys_requestlog', LEDGER_COLUMNS, recorded_at='$2', flagged='$3')} "
    "ON CONFLICT (id) DO NOTHING RETURNING id), asked AS (SELECT jsonb_array_length($1) AS size) "
    "SELECT (SELECT coalesce(array_agg(id), '{}') FROM gone HAVING count(*) < (SELECT size FROM asked)), "
    "(SELECT coalesce(array_agg(id), '{}') FROM fresh HAVING count(*) < (SELECT size FROM asked))",  # NULL: all
)

# Not of every request: planned each time.
_IDS = "string_to_array(%s, ',')::uuid[]"
_TOUCH = (
    "UPDATE keys_client SET last_used_at = %s WHERE id IN (SELECT id FROM keys_client "  # noqa: S608 - constants
    f"WHERE id = ANY({_IDS}) ORDER BY id FOR NO KEY UPDATE)"
)
_DUE_COOLDOWNS = (
    "SELECT id, account_id, pattern FROM keys_cooldown WHERE cleared_at IS NULL "
    "AND (key_id = %s OR account_id = %s) AND pattern IN ('', %s)"
)
_BEGIN_TRIAL = "UPDATE keys_cooldown SET trial = %s, trial_at = %s WHERE id = ANY(%s)"
_ATTEMPT_TYPES = _TYPES | {"request_id": "uuid"}  # in the ledger it is a text
_ATTEMPTS = f"{_insert('%s', 'keys_attempt', ATTEMPT_COLUMNS, _ATTEMPT_TYPES)} ON CONFLICT (request_id, n) DO NOTHING"
_MOVE = (
    f"WITH held AS (SELECT id FROM keys_inflight WHERE id = ANY({_IDS}) ORDER BY id FOR NO KEY UPDATE) "  # noqa: S608
    "UPDATE keys_inflight i SET key_id = moved.key_id FROM (SELECT (r->>0)::uuid AS id, (r->>1)::uuid AS key_id "
    "FROM jsonb_array_elements(%s::jsonb) r) AS moved WHERE i.id = moved.id AND i.id IN (SELECT id FROM held)"
)


class PostgresStatements(Statements):
    """owns_transaction: BEGIN and COMMIT are sent from here, and what answers nothing waits for what does."""

    def __init__(
        self, connection: BaseDatabaseWrapper, raw: psycopg.Connection[Any], *, owns_transaction: bool, lazy_disk: bool
    ) -> None:
        super().__init__(connection, raw)
        self._raw = raw
        self._owns_transaction = owns_transaction
        self._lazy_disk = lazy_disk
        self._session = session_of(raw)
        self._waiting: list[Call] = []

    def stamp(self, value: dt.datetime) -> str:
        return rfc3339(value)

    # -- asking ------------------------------------------------------------------------------------------------------
    def _send(self, *calls: Call) -> list[list[Row]]:
        """What waits and then `calls`, in one round trip; the rows of each of `calls`."""
        if not self._owns_transaction:
            self._begin()  # as psycopg's own cursors do where Django has said so
        calls, self._waiting, first = (*self._waiting, *calls), [], len(self._waiting)
        known = self._session.prepared
        for call in calls:
            if call.prepared not in known and call.prepared is not None:
                self._execute(call.prepared.declaration)
                known.add(call.prepared)
        params = [param for call in calls for param in call.params]
        found: list[list[Row]] = self._execute(_one_text(tuple([call.text for call in calls])), params)
        return found[first:]

    def _ask(self, text: str, params: Sequence[Any], *_: Any) -> list[list[Row]]:
        return ask(self._raw, text, params, self._session)

    def _answer(self, call: Call) -> list[Row]:
        return self._send(call)[0]

    def _later(self, call: Call) -> None:
        """Django's transaction may go on with statements that don't pass here, so there it is sent at once."""
        self._waiting.append(call)
        if not self._owns_transaction:
            self._send()

    def _begin(self) -> None:
        if not self._has_begun and _BEGIN not in self._waiting:
            self._waiting.insert(0, _BEGIN)

    @property
    def _has_begun(self) -> bool:
        return self._raw.pgconn.transaction_status != _IDLE

    def commit(self) -> None:
        if self._waiting or self._has_begun:
            self._send(_COMMIT)

    # -- admission ---------------------------------------------------------------------------------------------------
    def lock_pool(self) -> int:
        return int(self._answer(_LOCK.call())[0][0])

    def open_pool(
        self, digests: Sequence[str], names: Sequence[str], candidates: CandidateQuery | None = None
    ) -> PoolView:
        self._begin()
        if self._lazy_disk:
            self._later(_LAZILY)
        calls = [_LOCK.call(), _CLIENTS.call(",".join(digests)), _ALIASES.call(_json(names))]
        if candidates is not None:
            calls.append(_CANDIDATES.call(*self._candidate_params(candidates)))
        ((turn,),), clients, aliases, *read = self._send(*calls)
        return PoolView(turn, clients, dict(aliases), sorted(read[0], key=_in_turn) if read else [])

    def save_turn(self, turn: int) -> None:
        self._later(Call("UPDATE keys_pool SET turn = %s WHERE id = 1", [turn]))

    def read_clients(self, digests: Sequence[str]) -> list[Row]:
        return self._answer(_CLIENTS.call(",".join(digests)))

    def read_aliases(self, names: Sequence[str]) -> dict[str, str]:
        return dict(self._answer(_ALIASES.call(_json(names))))

    def touch_clients(self, client_ids: Sequence[UUID], now: dt.datetime) -> None:
        self._later(Call(_TOUCH, [self.stamp(now), _joined(client_ids)]))

    def read_candidates(self, asked: CandidateQuery, *, again: bool = False) -> list[Row]:
        """Unless `again`, fewer than there are when a chosen key was taken out of service while we waited for it."""
        read = self._read_all_candidates if again else self._read_candidates
        return sorted(read(self._candidate_params(asked)), key=_in_turn)

    def _read_candidates(self, params: Sequence[Any]) -> list[Row]:
        return self._answer(_CANDIDATES.call(*params))

    def _read_all_candidates(self, params: Sequence[Any]) -> list[Row]:
        chosen, rows = -1, list[Row]()
        while len(rows) != chosen:
            found = self._answer(_CANDIDATES_COUNTED.call(*params))
            chosen, rows = found[0][0], [row[1:] for row in found if row[1] is not None]
        return rows

    def read_due_cooldowns(self, key_id: UUID, account_id: UUID | None, variant: str) -> list[Row]:
        return self._answer(Call(_DUE_COOLDOWNS, [self.uuid(key_id), self.uuid(account_id), variant]))

    def begin_trial(self, cooldown_ids: Sequence[int], trial: UUID, now: dt.datetime) -> None:
        self._later(Call(_BEGIN_TRIAL, [trial.hex, self.stamp(now), list(cooldown_ids)]))

    def save_selections(
        self, selections: Selections, admitted: Sequence[Row], *, worker: UUID, now: dt.datetime
    ) -> None:
        keys = selections.keys
        chosen = [held_hex(key.int) for key, _, _ in keys], [turn for _, turn, _ in keys], [n for _, _, n in keys]
        begun = _json(admitted), self.stamp(now), held_hex(worker.int)
        self._later(_SAVE_SELECTIONS.call(selections.turn, *begun, *chosen))

    # -- in flight and ledger ----------------------------------------------------------------------------------------
    def move_in_flight(self, moved: Sequence[tuple[UUID, UUID]]) -> None:
        rows = _json([(request.hex, key.hex) for request, key in moved])
        self._later(Call(_MOVE, [_joined([request for request, _ in moved]), rows]))

    def settle_rows(
        self, rows: Sequence[Row], *, recorded_at: dt.datetime, is_flagged: bool = False, is_last: bool = False
    ) -> Settled | None:
        self._begin()
        settle = _SETTLE.call(_json(rows), self.stamp(recorded_at), is_flagged)
        found = self._send(settle, _COMMIT) if is_last and self._owns_transaction else self._send(settle)
        in_flight, inserted = found[0][0]
        if in_flight is None and inserted is None:
            return None
        everybody = [row[0] for row in rows]
        return Settled(*(set(everybody if ids is None else ids) for ids in (in_flight, inserted)))

    def insert_attempts(self, rows: Sequence[Row]) -> None:
        self._later(Call(_ATTEMPTS, [_json(rows)]))


@functools.lru_cache(256)
def _one_text(texts: tuple[str, ...]) -> str:
    """The same object for the same statements, so that what is held of it is found at once."""
    return "; ".join(texts)


def _in_turn(row: Row) -> Row:
    return row[5], row[6], row[8], row[0]


def _json(rows: Sequence[Any]) -> bytes:
    return msgspec.json.encode(rows)


def _joined(ids: Sequence[UUID]) -> str:
    return ",".join(each.hex for each in ids)
