"""The batch statements, in the SQL that SQLite and PostgreSQL share. The one place that bypasses the ORM.

A batch of one runs five to eight of these; building them with the ORM costs more than running them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

_LEDGER_COLUMNS = (
    "id, client_id, key_id, model_asked, model_sent, status, error_type, cause, attempts, stream, input_tokens, "
    "output_tokens, cache_read_tokens, cache_write_tokens, cost_nano, cost_source, latency_ms, first_token_ms, "
    "generation_id, request_id, client_ip, user_agent, session_id, flagged, created_at, recorded_at"
)
_LEDGER_WIDTH = _LEDGER_COLUMNS.count(",") + 1


class Statements:
    """Bound to one open connection; every method is one statement unless it says otherwise."""

    def __init__(self, connection: BaseDatabaseWrapper, cursor: CursorWrapper) -> None:
        self._cursor = cursor
        self._is_postgresql = connection.vendor == "postgresql"
        self._for_update = " FOR NO KEY UPDATE" if self._is_postgresql else ""

    # -- values ------------------------------------------------------------------------------------------------------
    def uuid(self, value: UUID | None) -> Any:
        """As Django stores it: a native type on PostgreSQL, 32 hex digits on SQLite."""
        return value if self._is_postgresql or value is None else value.hex

    def stamp(self, value: dt.datetime) -> Any:
        """As Django stores it: SQLite holds naive UTC text."""
        return value if self._is_postgresql else str(timezone.make_naive(value, dt.UTC))

    def read_uuid(self, value: Any) -> UUID | None:
        return value if value is None or isinstance(value, UUID) else UUID(hex=value)

    def read_stamp(self, value: Any) -> dt.datetime | None:
        if value is None:
            return None
        stamp = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
        return stamp if timezone.is_aware(stamp) else stamp.replace(tzinfo=dt.UTC)

    def _rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql, params)
        return list(self._cursor.fetchall())

    # -- admission ---------------------------------------------------------------------------------------------------
    def commit_without_waiting_for_disk(self) -> None:
        """For a batch that settles nothing. On SQLite `keys.lane` sets the connection's pragma before it begins."""
        if self._is_postgresql:
            self._cursor.execute("SET LOCAL synchronous_commit = off")

    def lock_pool(self) -> int:
        """The round robin's counter; other admissions wait until this transaction ends."""
        return int(self._rows(f"SELECT turn FROM keys_pool WHERE id = 1{self._for_update}")[0][0])

    def save_turn(self, turn: int) -> None:
        self._cursor.execute("UPDATE keys_pool SET turn = %s WHERE id = 1", [turn])

    def read_clients(self, digests: Sequence[str]) -> list[tuple[Any, ...]]:
        """(digest, id, name, scopes, expires_at, revoked_at, last_used_at)"""
        return self._rows(
            "SELECT digest, id, name, scopes, expires_at, revoked_at, last_used_at FROM keys_client "
            f"WHERE digest IN ({_marks(len(digests))})",
            digests,
        )

    def touch_clients(self, client_ids: Iterable[UUID], now: dt.datetime) -> None:
        self._cursor.executemany(
            "UPDATE keys_client SET last_used_at = %s WHERE id = %s",
            [(self.stamp(now), self.uuid(client_id)) for client_id in client_ids],
        )

    def read_aliases(self, names: Sequence[str]) -> dict[str, str]:
        return dict(self._rows(f"SELECT name, target FROM keys_modelalias WHERE name IN ({_marks(len(names))})", names))

    def read_candidates(
        self, *, variant: str, now: dt.datetime, stale_trial: dt.datetime, limit: int
    ) -> list[tuple[Any, ...]]:
        """Eligible keys in the order of the round robin, locked.

        Rows: (id, account_id, name, tail, secret, tier, turn, is_due).

        Not eligible: a key with an open cooldown, of its own or of its account, that is not due yet or whose
        trial is under way. A trial is over when its InFlight row is gone or when it began before `stale_trial`;
        one that this batch gave out (`trial_at` is `now`) has no InFlight row yet.
        """
        blocked = (
            "SELECT 1 FROM keys_cooldown c WHERE c.cleared_at IS NULL AND c.{column} = k.{owner} "
            "AND c.pattern IN ('', %s) AND (c.until > %s OR (c.trial IS NOT NULL AND c.trial_at > %s "
            "AND (c.trial_at >= %s OR EXISTS (SELECT 1 FROM keys_inflight i WHERE i.id = c.trial))))"
        )
        due = (
            "SELECT 1 FROM keys_cooldown c WHERE c.cleared_at IS NULL AND c.pattern IN ('', %s) "
            "AND (c.key_id = k.id OR c.account_id = k.account_id)"
        )
        eligible = (
            "SELECT k.id FROM keys_openrouterkey k WHERE k.state = 'active' "
            f"AND NOT EXISTS ({blocked.format(column='key_id', owner='id')}) "
            f"AND NOT EXISTS ({blocked.format(column='account_id', owner='account_id')}) "
            "ORDER BY k.tier, k.turn, k.created_at, k.id LIMIT %s"
        )
        block = [variant, self.stamp(now), self.stamp(stale_trial), self.stamp(now)]
        rows = self._rows(
            "SELECT k.id, k.account_id, k.name, k.tail, k.secret, k.tier, k.turn, "
            f"CASE WHEN EXISTS ({due}) THEN 1 ELSE 0 END, k.created_at FROM keys_openrouterkey k "
            f"WHERE k.id IN ({eligible}) AND k.state = 'active' ORDER BY k.id{self._for_update}",
            [variant, *block, *block, limit],
        )
        rows.sort(key=lambda row: (row[5], row[6], row[8], row[0]))
        return [row[:8] for row in rows]

    def read_due_cooldowns(self, key_id: UUID, account_id: UUID | None, variant: str) -> list[tuple[Any, ...]]:
        """The open cooldowns that a trial of this key tests: (id, account_id, pattern)."""
        return self._rows(
            "SELECT id, account_id, pattern FROM keys_cooldown WHERE cleared_at IS NULL "
            "AND (key_id = %s OR account_id = %s) AND pattern IN ('', %s)",
            [self.uuid(key_id), self.uuid(account_id), variant],
        )

    def begin_trial(self, cooldown_ids: Sequence[int], trial: UUID, now: dt.datetime) -> None:
        self._cursor.execute(
            f"UPDATE keys_cooldown SET trial = %s, trial_at = %s WHERE id IN ({_marks(len(cooldown_ids))})",
            [self.uuid(trial), self.stamp(now), *cooldown_ids],
        )

    def save_selections(self, rows: Iterable[tuple[UUID, int, int]], now: dt.datetime) -> None:
        """rows: (key id, its new turn, how often it was selected in this batch)"""
        self._cursor.executemany(
            "UPDATE keys_openrouterkey SET turn = %s, selections = selections + %s, last_selected_at = %s "
            "WHERE id = %s",
            [(turn, times, self.stamp(now), self.uuid(key_id)) for key_id, turn, times in rows],
        )

    # -- in flight ---------------------------------------------------------------------------------------------------
    def insert_in_flight(self, rows: Iterable[tuple[UUID, UUID, UUID, str, UUID, dt.datetime]]) -> None:
        """rows: (id, client, key, model sent, worker, started_at). A batch whose commit was lost may run twice."""
        self._cursor.executemany(
            "INSERT INTO keys_inflight (id, client_id, key_id, model, reserved_nano, worker, started_at) "
            "VALUES (%s, %s, %s, %s, 0, %s, %s) ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id",
            [
                (self.uuid(a), self.uuid(client), self.uuid(key), model, self.uuid(worker), self.stamp(at))
                for a, client, key, model, worker, at in rows
            ],
        )

    def move_in_flight(self, rows: Iterable[tuple[UUID, UUID]]) -> None:
        """rows: (id, its new key)"""
        self._cursor.executemany(
            "UPDATE keys_inflight SET key_id = %s WHERE id = %s",
            [(self.uuid(key), self.uuid(row)) for row, key in rows],
        )

    def lock_in_flight(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of `ids` are in flight: whoever holds the row has the right to settle."""
        found = self._rows(
            f"SELECT id FROM keys_inflight WHERE id IN ({_marks(len(ids))}) ORDER BY id{self._for_update}",
            [self.uuid(row) for row in ids],
        )
        return {row for (raw,) in found if (row := self.read_uuid(raw))}

    def delete_in_flight(self, ids: Sequence[UUID]) -> None:
        self._cursor.execute(
            f"DELETE FROM keys_inflight WHERE id IN ({_marks(len(ids))})",
            [self.uuid(row) for row in ids],
        )

    # -- ledger ------------------------------------------------------------------------------------------------------
    def insert_ledger(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """rows: values of the ledger's columns in the order of `_LEDGER_COLUMNS`. Answers how many were new."""
        if not rows:
            return 0
        self._cursor.executemany(
            f"INSERT INTO keys_requestlog ({_LEDGER_COLUMNS}) VALUES ({_marks(_LEDGER_WIDTH)}) "
            "ON CONFLICT (id) DO NOTHING",
            rows,
        )
        return int(self._cursor.rowcount)

    def insert_attempts(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """rows: (request, n, key, status, cause, detail, duration_ms, created_at)"""
        self._cursor.executemany(
            "INSERT INTO keys_attempt (request_id, n, key_id, status, cause, detail, duration_ms, created_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (request_id, n) DO NOTHING",
            rows,
        )


def _marks(count: int) -> str:
    return ", ".join(["%s"] * count)
