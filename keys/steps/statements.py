"""The batch statements: what SQLite and PostgreSQL share of them. The one place that bypasses the ORM.

A batch of one runs three to six of these. Building them with the ORM, or passing them through Django's cursors, costs
more than running them; and each row that is sent by itself costs a switch of threads, or a round trip. So a batch is
one statement of its kind however many rows it has: `keys.steps.sqlite` and `keys.steps.postgresql` say how.
"""

from __future__ import annotations

import abc
import datetime as dt
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

import msgspec
from django.db.backends.base.base import BaseDatabaseWrapper

from keys.uuid7 import IDS_HELD

Row = tuple[Any, ...]

LEDGER_COLUMNS = (  # beside what is the same in all rows; three ids, a moment, and plain values
    *("id", "client_id", "key_id", "created_at"),
    *("model_asked", "model_sent", "generation_id", "client_ip", "user_agent", "session_id"),
    *("request_id", "status", "error_type", "cause", "attempts", "stream"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("cost_nano", "cost_source", "latency_ms", "first_token_ms"),
)
ATTEMPT_COLUMNS = ("request_id", "n", "key_id", "status", "cause", "detail", "duration_ms", "created_at")
IN_FLIGHT_COLUMNS = ("id", "client_id", "key_id", "model")
CLIENT_COLUMNS = "digest, id, name, scopes, expires_at, revoked_at, last_used_at"

_BLOCKED = (
    "SELECT 1 FROM keys_cooldown c{open} WHERE c.cleared_at IS NULL AND c.{column} = k.{owner} "
    "AND c.pattern IN ('', {variant}) AND (c.until > {now} OR (c.trial IS NOT NULL AND c.trial_at > {stale} "
    "AND (c.trial_at >= {now} OR EXISTS (SELECT 1 FROM keys_inflight i WHERE i.id = c.trial)))){fence}"
)
_DUE = (
    "EXISTS (SELECT 1 FROM keys_cooldown c{open} WHERE c.cleared_at IS NULL AND c.{column} = k.{owner} "
    "AND c.pattern IN ('', {variant}))"
)
_TARGETS = (("key_id", "id"), ("account_id", "account_id"))  # of a cooldown, and what it is of a key
_CANDIDATE = "k.id, k.account_id, k.name, k.tail, k.secret, k.tier, k.turn, CASE WHEN {due} THEN 1 ELSE 0 END"
_IN_TURN = "ORDER BY k.tier, k.turn, k.created_at, k.id LIMIT {limit}"


def candidate_texts(
    mark: str, *, open_of_key: str = "", open_of_account: str = "", fence: str = ""
) -> tuple[str, str, str]:
    """Of `read_candidates`: the columns, the conditions and the order.

    Parameters, numbered behind `mark`: the variant, now, the oldest trial, the limit. open_of_…: how a database that
    can't tell by itself is led past the closed cooldowns. fence: what keeps one from joining them with all keys.
    """
    marks = {name: f"{mark}{n}" for n, name in enumerate(("variant", "now", "stale", "limit"), 1)}
    hints = (open_of_key, open_of_account)
    due, blocked = (
        [
            text.format(column=column, owner=owner, open=hint, fence=fence, **marks)
            for (column, owner), hint in zip(_TARGETS, hints, strict=True)
        ]
        for text in (_DUE, _BLOCKED)
    )
    return (
        _CANDIDATE.format(due=" OR ".join(due)),
        f"k.state = 'active' AND {' AND '.join(f'NOT EXISTS ({block})' for block in blocked)}",
        _IN_TURN.format(**marks),
    )


class Settled(msgspec.Struct, frozen=True):
    """What `settle_rows` found: whose InFlight row is gone now, and whose ledger row is new."""

    in_flight: Collection[UUID]
    inserted: Collection[UUID]


class Selections(msgspec.Struct, frozen=True):
    """keys: (id, its new turn, how often it was selected)"""

    turn: int
    keys: Sequence[tuple[UUID, int, int]]


class CandidateQuery(msgspec.Struct, frozen=True):
    """Which keys are asked for. stale_trial: a trial that began before is over."""

    variant: str
    now: dt.datetime
    stale_trial: dt.datetime
    limit: int


class PoolView(msgspec.Struct, frozen=True):
    """What `open_pool` read: the round robin's counter, `CLIENT_COLUMNS` of those asked for, and their aliases.

    `candidates` are what `read_candidates` would have answered; empty if none were asked for.
    """

    turn: int
    clients: list[Row]
    aliases: dict[str, str]
    candidates: list[Row]


class Statements(abc.ABC):
    """Bound to one open connection, inside a transaction. Every method is one statement unless it says otherwise.

    What answers nothing may be sent with what follows, at the latest with the commit.

    Raises the database's own errors: the caller works under Django's `wrap_database_errors`.
    """

    def __init__(self, connection: BaseDatabaseWrapper, cursor: Any) -> None:
        self._connection = connection
        self._cursor = cursor

    # -- values ------------------------------------------------------------------------------------------------------
    def uuid(self, value: UUID | None) -> str | None:
        """32 hex digits, which PostgreSQL takes for its own type and SQLite holds as they are."""
        return None if value is None else value.hex

    @abc.abstractmethod
    def stamp(self, value: dt.datetime) -> str:
        """As Django stores it."""

    def read_uuid(self, value: Any) -> UUID | None:
        return value if value is None or isinstance(value, UUID) else _uuid_of(value)

    def read_stamp(self, value: Any) -> dt.datetime | None:
        if value is None:
            return None
        stamp = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
        return stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=dt.UTC)

    # -- asking ------------------------------------------------------------------------------------------------------
    def _execute(self, text: str, params: Sequence[Any] = ()) -> Any:
        """Through the connection's `execute_wrapper`s, as Django's own cursors."""
        if not self._connection.execute_wrappers:
            return self._ask(text, params)
        execute: Any = self._ask
        for wrapper in reversed(self._connection.execute_wrappers):
            execute = functools.partial(wrapper, execute)
        return execute(text, params, False, {"connection": self._connection, "cursor": self._cursor})

    def _ask(self, text: str, params: Sequence[Any], *_: Any) -> Any:
        """What is left out is of use to wrappers alone."""
        self._cursor.execute(text, params)

    def _rows(self, text: str, params: Sequence[Any] = ()) -> list[Row]:
        self._execute(text, params)
        return list(self._cursor.fetchall())

    # -- admission ---------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def lock_pool(self) -> int:
        """The round robin's counter; other admissions wait until this transaction ends."""

    @abc.abstractmethod
    def open_pool(
        self, digests: Sequence[str], names: Sequence[str], candidates: CandidateQuery | None = None
    ) -> PoolView:
        """Lock the Pool and read who asks for what; and then the candidates, if anybody can say which."""

    @abc.abstractmethod
    def save_turn(self, turn: int) -> None: ...

    @abc.abstractmethod
    def read_clients(self, digests: Sequence[str]) -> list[Row]:
        """`CLIENT_COLUMNS`"""

    @abc.abstractmethod
    def read_aliases(self, names: Sequence[str]) -> dict[str, str]: ...

    @abc.abstractmethod
    def touch_clients(self, client_ids: Sequence[UUID], now: dt.datetime) -> None: ...

    @abc.abstractmethod
    def read_candidates(self, asked: CandidateQuery, *, again: bool = False) -> list[Row]:
        """Eligible keys in the order of the round robin, locked.

        Rows: (id, account_id, name, tail, secret, tier, turn, is_due, …). again: for those who found none;
        none is missing, whatever was committed while we waited for locks.

        Not eligible: a key with an open cooldown, of its own or of its account, that is not due yet or whose
        trial is under way. A trial is over when its InFlight row is gone or when it began before `stale_trial`;
        one that this batch gave out (`trial_at` is `now`) has no InFlight row yet.
        """

    def _candidate_params(self, asked: CandidateQuery) -> tuple[Any, ...]:
        """In the order of `candidate_texts`."""
        return asked.variant, self.stamp(asked.now), self.stamp(asked.stale_trial), asked.limit

    @abc.abstractmethod
    def read_due_cooldowns(self, key_id: UUID, account_id: UUID | None, variant: str) -> list[Row]:
        """The open cooldowns that a trial of this key tests: (id, account_id, pattern)."""

    @abc.abstractmethod
    def begin_trial(self, cooldown_ids: Sequence[int], trial: UUID, now: dt.datetime) -> None: ...

    @abc.abstractmethod
    def save_selections(
        self, selections: Selections, admitted: Sequence[Row], *, worker: UUID, now: dt.datetime
    ) -> None:
        """The Pool's counter, the keys' turns and the InFlight rows. Three statements on SQLite.

        admitted: `IN_FLIGHT_COLUMNS`; a batch whose commit was lost may run twice.
        """

    # -- in flight and ledger ----------------------------------------------------------------------------------------
    @abc.abstractmethod
    def move_in_flight(self, moved: Sequence[tuple[UUID, UUID]]) -> None:
        """moved: (id, its new key)"""

    @abc.abstractmethod
    def settle_rows(
        self, rows: Sequence[Row], *, recorded_at: dt.datetime, is_flagged: bool = False, is_last: bool = False
    ) -> Settled | None:
        """Take the InFlight rows out and put `rows` (`LEDGER_COLUMNS`) in, where the ledger has none.

        None: all were in flight, and all are new. Whoever deletes the InFlight row has the right to settle. Two
        statements on SQLite, four when it is not None. is_last: nothing follows in this transaction, which may be
        committed at once.
        """

    @abc.abstractmethod
    def insert_attempts(self, rows: Sequence[Row]) -> None:
        """rows: `ATTEMPT_COLUMNS`"""


rfc3339: Callable[[dt.datetime], str] = msgspec.to_builtins  # as `isoformat`, ten times as fast; UTC is a Z


@functools.lru_cache(IDS_HELD)
def _uuid_of(stored: str) -> UUID:
    """The same keys and clients are read again and again."""
    return UUID(hex=stored)
