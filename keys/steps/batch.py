"""One batch: what waits in the lane, as one transaction. Called by `keys.lane` alone."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction

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
from keys.steps.admission import (
    MAX_MODEL_CHARS,
    Admission,
    Doorman,
    admit,
    candidate_query,
    likely_variant,
    most_tried,
    switch,
)
from keys.steps.clean import clean_text
from keys.steps.database import open_lean_statements, open_statements
from keys.steps.identification import identify
from keys.steps.statements import CandidateQuery, Row, Statements

logger = logging.getLogger("opensvm.ledger")


@dataclass(frozen=True, slots=True)
class BatchRules:
    """What a batch needs to know beside its items."""

    worker: UUID
    policy: BenchPolicy
    trial_seconds: float


@dataclass(slots=True)
class _Asked:
    """The items of a batch by their kind, with their places in it."""

    settlements: list[Settlement] = field(default_factory=list)
    outcomes: list[Settlement | PassTrial | Switch] = field(default_factory=list)  # may bench a key or free one
    admits: list[tuple[int, Admit]] = field(default_factory=list)
    switches: list[tuple[int, Switch]] = field(default_factory=list)
    identifies: list[tuple[int, Identify]] = field(default_factory=list)

    @classmethod
    def sort(cls, items: Sequence[LaneItem]) -> _Asked:
        asked = cls()
        for index, item in enumerate(items):
            match item:
                case Settlement():
                    asked.settlements.append(item)
                    if item.failures or item.holds_trial or item.trial_passed:
                        asked.outcomes.append(item)
                case Admit():
                    asked.admits.append((index, item))
                case Switch():
                    asked.outcomes.append(item)
                    asked.switches.append((index, item))
                case PassTrial():
                    asked.outcomes.append(item)
                case Identify():
                    asked.identifies.append((index, item))
        return asked

    @property
    def needs_pool(self) -> bool:
        return bool(self.outcomes or self.admits or self.switches)


@dataclass(slots=True)
class Batch:
    """Items in, one result for each out. `after_commit` holds the log lines of what it did."""

    items: Sequence[LaneItem]
    rules: BatchRules
    now: dt.datetime
    results: dict[int, LaneResult] = field(default_factory=dict)
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    def run(self) -> list[LaneResult]:
        """One transaction, a lean one if no outcome may touch a cooldown; what repeats improve may take another.

        Raises what the database raises. Then the batch may run again: what was written is a repeat.
        """
        asked = _Asked.sort(self.items)
        opened = open_statements if asked.outcomes else open_lean_statements
        with opened(lazy_disk=not asked.settlements) as sql:
            repeats = self._run(asked, sql)
            if asked.outcomes:
                settlement.improve_all(repeats, self.now)
        if not asked.outcomes and repeats:
            with transaction.atomic():
                settlement.improve_all(repeats, self.now)
        for log in self.after_commit:
            log()
        return [self.results.get(index) for index in range(len(self.items))]

    def _run(self, asked: _Asked, sql: Statements) -> list[Settlement]:
        """Answers the repeats, which may improve rows that are written now."""
        settlements, admission = asked.settlements, None
        if asked.needs_pool:
            doorman = Doorman.read(sql, [item for _, item in asked.admits], self._likely(asked))
            self._apply_outcomes(asked.outcomes, doorman.turn)
            if asked.admits or asked.switches:
                admission = self._select(asked, sql, doorman)
                settlements = [*settlements, *self._settlements_without_key(asked.admits)]
        if asked.identifies:
            found = identify([item for _, item in asked.identifies], sql=sql, now=self.now)
            self.results.update(zip((index for index, _ in asked.identifies), found, strict=True))
        if admission is not None:
            admission.flush(self._in_flight_rows(sql, asked.admits))
        # the attempts of requests that go on; those of settled ones are written with their row
        settlement.write_attempts([(item.id, failed) for _, item in asked.switches for failed in item.failures], sql)
        settled = settlement.settle_once(settlements, sql=sql, now=self.now, is_last=not asked.outcomes)
        for orphan in settled.orphans:
            self.after_commit.append(lambda orphan=orphan: _log_orphan(orphan))  # type: ignore[misc]
        return settled.repeats

    def _likely(self, asked: _Asked) -> CandidateQuery | None:
        """The keys that will be asked for: known before the aliases are, unless an outcome may bench or free one."""
        if asked.outcomes or not asked.admits:
            return None
        _, first = asked.admits[0]
        return candidate_query(
            likely_variant(first.model_asked), self.now, self.rules.trial_seconds, wanted=len(asked.admits)
        )

    def _apply_outcomes(self, outcomes: Sequence[Settlement | PassTrial | Switch], turn: int) -> None:
        """What trials and failed tries mean for the cooldowns, before anyone selects a key."""
        for item in outcomes:
            if isinstance(item, PassTrial) or (isinstance(item, Settlement) and item.trial_passed):
                cooldowns.pass_trial(item.id, self.now)
            if not isinstance(item, PassTrial):
                benched = cooldowns.apply_failures(
                    item.id, item.failures, turn=turn, policy=self.rules.policy, now=self.now
                )
                self.after_commit += [bench.log for bench in benched]
            if isinstance(item, Settlement) and item.holds_trial and not item.trial_passed:
                cooldowns.free_trial(item.id)

    def _select(self, asked: _Asked, sql: Statements, doorman: Doorman) -> Admission:
        """Keys for those who wait. The caller flushes."""
        admission = Admission(
            sql=sql,
            now=self.now,
            trial_seconds=self.rules.trial_seconds,
            turn=doorman.turn,
            wanted=len(asked.admits) + len(asked.switches) + most_tried(item for _, item in asked.switches),
        )
        if doorman.candidates is not None:
            admission.begin_with(*doorman.candidates)
        for index, moved in asked.switches:
            self.results[index] = switch(moved, admission=admission)
        for index, item in asked.admits:
            self.results[index] = admit(item, doorman=doorman, admission=admission)
        self._move_in_flight(sql, asked.switches)
        admitted = (item for index, item in asked.admits if isinstance(self.results[index], Admitted))
        doorman.touch(sql, (doorman.clients[item.client_digest] for item in admitted), self.now)
        return admission

    def _move_in_flight(self, sql: Statements, switches: Sequence[tuple[int, Switch]]) -> None:
        moved = [
            (item.id, found.key_id) for index, item in switches if isinstance(found := self.results[index], Selection)
        ]
        if moved:
            sql.move_in_flight(sorted(moved))

    def _in_flight_rows(self, sql: Statements, admits: Sequence[tuple[int, Admit]]) -> list[Row]:
        worker, started_at = self.rules.worker.hex, sql.stamp(self.now)
        return [
            (
                item.id.hex,
                found.client_id.hex,
                found.selection.key_id.hex,
                clean_text(found.model_sent, MAX_MODEL_CHARS),
                0,
                worker,
                started_at,
            )
            for index, item in admits
            if isinstance(found := self.results[index], Admitted)
        ]

    def _settlements_without_key(self, admits: Sequence[tuple[int, Admit]]) -> list[Settlement]:
        """Of those who found none."""
        return [
            settlement.settlement_without_key(
                item,
                shortage,
                status=429 if shortage.is_rate_limited else 529,
                error_type="rate_limit_error" if shortage.is_rate_limited else "overloaded_error",
                now=self.now,
            )
            for index, item in admits
            if isinstance(shortage := self.results[index], NoKey)
        ]


def _log_orphan(request_id: UUID) -> None:
    logger.error(
        "settled a request that was not in flight: its row was inserted all the same",
        extra={"event": "ledger.orphan", "request": str(request_id)},
    )
