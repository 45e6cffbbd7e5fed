"""One batch: what waits in the lane, as one transaction. Called by `keys.lane` alone."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db import connection, transaction

from keys.causes import BenchPolicy
from keys.ledger_items import (
    Admit,
    Admitted,
    Identify,
    LaneItem,
    LaneResult,
    NoKey,
    PassTrial,
    Selection,
    Settlement,
    Switch,
)
from keys.steps import cooldowns, settlement
from keys.steps.admission import MAX_MODEL_CHARS, Admission, Doorman, KnownClient, admit, switch
from keys.steps.clean import clean_text
from keys.steps.identification import identify
from keys.steps.statements import Statements

logger = logging.getLogger("opensvm.ledger")


@dataclass(frozen=True, slots=True)
class BatchRules:
    """What a batch needs to know beside its items."""

    worker: UUID
    policy: BenchPolicy
    trial_seconds: float


@dataclass(slots=True)
class Batch:
    """Items in, one result for each out. `after_commit` holds the log lines of what it did."""

    items: Sequence[LaneItem]
    rules: BatchRules
    now: dt.datetime
    results: dict[int, LaneResult] = field(default_factory=dict)
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    def run(self) -> list[LaneResult]:
        """One transaction; raises what the database raises, with nothing written."""
        with transaction.atomic(), connection.cursor() as cursor:
            self._run(Statements(connection, cursor))
        for log in self.after_commit:
            log()
        return [self.results.get(index) for index in range(len(self.items))]

    def _run(self, sql: Statements) -> None:
        settlements = [item for item in self.items if isinstance(item, Settlement)]
        if not settlements:
            sql.commit_without_waiting_for_disk()
        if self._needs_pool():
            turn = sql.lock_pool()
            self._apply_outcomes(turn)
            settlements += self._admit_and_switch(sql, turn)
        self._identify(sql)
        for orphan in settlement.settle(settlements, sql=sql, now=self.now):
            self.after_commit.append(lambda orphan=orphan: _log_orphan(orphan))  # type: ignore[misc]
        self._write_switched_attempts(sql)

    def _needs_pool(self) -> bool:
        return any(_touches_keys(item) for item in self.items)

    def _identify(self, sql: Statements) -> None:
        asked = [(index, item) for index, item in enumerate(self.items) if isinstance(item, Identify)]
        if asked:
            found = identify([item for _, item in asked], sql=sql, now=self.now)
            self.results.update(zip((index for index, _ in asked), found, strict=True))

    def _apply_outcomes(self, turn: int) -> None:
        """What trials and failed tries mean for the cooldowns, before anyone selects a key."""
        for item in self.items:
            if isinstance(item, PassTrial) or (isinstance(item, Settlement) and item.trial_passed):
                cooldowns.pass_trial(item.id, self.now)
            if isinstance(item, Settlement | Switch):
                benched = cooldowns.apply_failures(
                    item.id, item.failures, turn=turn, policy=self.rules.policy, now=self.now
                )
                self.after_commit += [bench.log for bench in benched]
            if isinstance(item, Settlement) and item.holds_trial and not item.trial_passed:
                cooldowns.free_trial(item.id)

    def _admit_and_switch(self, sql: Statements, turn: int) -> list[Settlement]:
        """Select keys for those who wait; answers the settlements of those who found none."""
        asked = [(index, item) for index, item in enumerate(self.items) if isinstance(item, Admit)]
        moving = [(index, item) for index, item in enumerate(self.items) if isinstance(item, Switch)]
        if not asked and not moving:
            return []
        doorman = Doorman.read(sql, [item for _, item in asked]) if asked else Doorman({}, {})
        admission = Admission(
            sql=sql,
            now=self.now,
            trial_seconds=self.rules.trial_seconds,
            worker=self.rules.worker,
            turn=turn,
            wanted=len(asked) + len(moving),
        )
        for index, moved in moving:
            self.results[index] = switch(moved, admission=admission)
        for index, item in asked:
            self.results[index] = admit(item, doorman=doorman, admission=admission)
        admission.flush()
        self._write_in_flight(sql, asked, moving)
        doorman.touch(sql, self._admitted_clients(asked, doorman), self.now)
        return self._settlements_without_key(asked)

    def _write_in_flight(
        self, sql: Statements, asked: Sequence[tuple[int, Admit]], moving: Sequence[tuple[int, Switch]]
    ) -> None:
        moved = [
            (item.id, selection.key_id)
            for index, item in moving
            if isinstance(selection := self.results[index], Selection)
        ]
        if moved:
            sql.lock_in_flight([row for row, _ in moved])
            sql.move_in_flight(moved)
        sql.insert_in_flight(
            [
                (item.id, found.client_id, found.selection.key_id, model, self.rules.worker, self.now)
                for index, item in asked
                if isinstance(found := self.results[index], Admitted)
                for model in [clean_text(found.model_sent, MAX_MODEL_CHARS)]
            ]
        )

    def _admitted_clients(self, asked: Sequence[tuple[int, Admit]], doorman: Doorman) -> list[KnownClient]:
        return [
            doorman.clients[item.client_digest] for index, item in asked if isinstance(self.results[index], Admitted)
        ]

    def _settlements_without_key(self, asked: Sequence[tuple[int, Admit]]) -> list[Settlement]:
        return [
            settlement.settlement_without_key(
                item,
                shortage,
                status=429 if shortage.is_rate_limited else 529,
                error_type="rate_limit_error" if shortage.is_rate_limited else "overloaded_error",
                now=self.now,
            )
            for index, item in asked
            if isinstance(shortage := self.results[index], NoKey)
        ]

    def _write_switched_attempts(self, sql: Statements) -> None:
        """The attempts of requests that go on; those of settled ones are written with their row."""
        settlement.write_attempts(
            [(item.id, failed) for item in self.items if isinstance(item, Switch) for failed in item.failures], sql
        )


def _touches_keys(item: LaneItem) -> bool:
    """Whether a key is selected for it, or what it says may bench or free one."""
    if isinstance(item, Settlement):
        return bool(item.failures) or item.holds_trial or item.trial_passed
    return not isinstance(item, Identify)


def _log_orphan(request_id: UUID) -> None:
    logger.error(
        "settled a request that was not in flight: its row was inserted all the same",
        extra={"event": "ledger.orphan", "request": str(request_id)},
    )
