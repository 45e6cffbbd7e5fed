"""One batch: what waits in the lane, as one transaction. Called by `keys.lane` alone."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections, transaction

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
from keys.model_names import likely_variant
from keys.steps import cooldowns, settlement
from keys.steps.admission import (
    MAX_MODEL_CHARS,
    Admission,
    Doorman,
    admit,
    candidate_query,
    most_tried,
    switch,
)
from keys.steps.clean import clean_text
from keys.steps.database import open_statements, run_lean
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
            if type(item) is Settlement:  # nearly all are this or the next; `isinstance` is slow with structs
                asked.settlements.append(item)
                if item.failures or item.holds_trial or item.trial_passed:
                    asked.outcomes.append(item)
            elif type(item) is Admit:
                asked.admits.append((index, item))
            elif isinstance(item, Switch):
                asked.outcomes.append(item)
                asked.switches.append((index, item))
            elif isinstance(item, PassTrial):
                asked.outcomes.append(item)
            elif isinstance(item, Identify):
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
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    results: list[LaneResult] = field(init=False)
    _asked: _Asked = field(init=False)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.items)
        self._asked = _Asked.sort(self.items)

    @property
    def settlements(self) -> Sequence[Settlement]:
        """Those of the items. Their commit is waited for on the disk."""
        return self._asked.settlements

    def run(self, database: Any = None) -> list[LaneResult]:
        """One transaction, a lean one if no outcome may touch a cooldown; what repeats improve may take another.

        database: this thread's connection, if it is at hand. Raises what the database raises. Then the batch may run
        again: what was written is a repeat.
        """
        asked = self._asked
        lazy_disk = not asked.settlements
        if asked.outcomes:
            with open_statements(lazy_disk=lazy_disk) as sql:
                settlement.improve_all(self._run(asked, sql), self.now)
        else:
            database = database or connections[DEFAULT_DB_ALIAS]
            repeats = run_lean(lambda sql: self._run(asked, sql), database, lazy_disk=lazy_disk)
            if repeats:
                with transaction.atomic():
                    settlement.improve_all(repeats, self.now)
        for log in self.after_commit:
            log()
        return self.results

    def _run(self, asked: _Asked, sql: Statements) -> list[Settlement]:
        """Answers the repeats, which may improve rows that are written now."""
        settlements, admission, admitted = asked.settlements, None, list[tuple[Admit, Admitted]]()
        if asked.needs_pool:
            doorman = Doorman.read(sql, [item for _, item in asked.admits], self._likely(asked), self.now)
            if asked.outcomes:
                self._apply_outcomes(asked.outcomes, doorman.turn)
            if asked.admits or asked.switches:
                admission = self._admission(asked, sql, doorman)
                admitted = self._select(asked, sql, doorman, admission)
                doorman.touch(sql, {item.client_digest for item, _ in admitted}, self.now)
                if len(admitted) < len(asked.admits):
                    settlements = [*settlements, *self._settlements_without_key(asked.admits)]
        if asked.identifies:
            found = identify([item for _, item in asked.identifies], sql=sql, now=self.now)
            for (index, _), each in zip(asked.identifies, found, strict=True):
                self.results[index] = each
        if admission is not None:
            admission.flush(_in_flight_rows(admitted))
        if asked.switches:  # the attempts of requests that go on; those of settled ones are written with their row
            failures = [(item.id, failed) for _, item in asked.switches for failed in item.failures]
            settlement.write_attempts(failures, sql)
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

    def _admission(self, asked: _Asked, sql: Statements, doorman: Doorman) -> Admission:
        """The caller flushes."""
        wanted = len(asked.admits)
        if asked.switches:
            wanted += len(asked.switches) + most_tried(item for _, item in asked.switches)
        admission = Admission(sql, self.now, self.rules.trial_seconds, self.rules.worker, doorman.turn, wanted)
        if doorman.candidates is not None:
            admission.begin_with(*doorman.candidates)
        return admission

    def _select(
        self, asked: _Asked, sql: Statements, doorman: Doorman, admission: Admission
    ) -> list[tuple[Admit, Admitted]]:
        """Keys for those who wait; answers whom an InFlight row is to be written for."""
        moved = []
        for index, item in asked.switches:
            selected = self.results[index] = switch(item, admission=admission)
            if isinstance(selected, Selection):
                moved.append((item.id, selected.key_id))
        admitted = []
        for index, new in asked.admits:
            found = self.results[index] = admit(new, doorman=doorman, admission=admission)
            if isinstance(found, Admitted):
                admitted.append((new, found))
        if moved:
            sql.move_in_flight(sorted(moved))
        return admitted

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


def _in_flight_rows(admitted: Sequence[tuple[Admit, Admitted]]) -> list[Row]:
    models = {model: clean_text(model, MAX_MODEL_CHARS) for model in {found.model_sent for _, found in admitted}}
    return [(item.id, found.client_id, found.selection.key_id, models[found.model_sent]) for item, found in admitted]


def _log_orphan(request_id: UUID) -> None:
    logger.error(
        "settled a request that was not in flight: its row was inserted all the same",
        extra={"event": "ledger.orphan", "request": str(request_id)},
    )
