"""Three ledgers held against each other: what clients received, what upstream billed, what our database says. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from opensvm.sandbox.remote import SeenGeneration
from tests.acceptance.crash.load import Received


@dataclass(frozen=True, slots=True)
class Row:
    """What a row of our ledger says."""

    request_id: str
    status: int
    error_type: str
    cost_nano: int | None
    cost_source: str
    generation_id: str

    @property
    def is_guessed(self) -> bool:
        """Its cost is not upstream's own word."""
        return self.cost_source in ("unknown", "estimated")


@dataclass(slots=True)
class Comparison:
    """`wrong` has a line for each breach of a promise; the figures are for the report."""

    whole: int = 0
    whole_without_row: list[str] = field(default_factory=list)
    whole_with_two_rows: list[str] = field(default_factory=list)
    whole_not_finished: list[str] = field(default_factory=list)  # its row does not say so
    whole_off_by_nano: int = 0
    answered_without_row: list[str] = field(default_factory=list)  # begun streams and errors of upstream
    rows: int = 0
    rows_twice: list[str] = field(default_factory=list)
    costs_off: list[str] = field(default_factory=list)
    unknown_with_id: list[str] = field(default_factory=list)  # upstream could still be asked
    unknown_without_id: int = 0  # killed before upstream had given an id: nobody can ask
    billed: int = 0
    billed_unseen: list[str] = field(default_factory=list)  # billed generations that no row names

    @property
    def wrong(self) -> dict[str, object]:
        found: dict[str, object] = {
            "whole answers without a row": self.whole_without_row,
            "whole answers with two rows": self.whole_with_two_rows,
            "whole answers that their row does not call finished": self.whole_not_finished,
            "nano-dollars off in whole answers": self.whole_off_by_nano,
            "begun answers without a row": self.answered_without_row,
            "rows twice": self.rows_twice,
            "costs that differ from the bill": self.costs_off,
            "unknown costs that could be asked for": self.unknown_with_id,
            "bills that no row can stand for": self.billed_unseen[self.unknown_without_id :],
        }
        return {name: what for name, what in found.items() if what}


def compare(received: Sequence[Received], billed: Sequence[SeenGeneration], rows: Sequence[Row]) -> Comparison:
    bills = {generation.id: generation.cost_nano for generation in billed}
    by_request: dict[str, list[Row]] = {}
    for row in rows:
        by_request.setdefault(row.request_id, []).append(row)
    found = Comparison(rows=len(rows), billed=sum(cost > 0 for cost in bills.values()))
    for answer in received:
        _compare_answer(answer, by_request.get(answer.request_id, []), bills, found)
    _compare_rows(rows, bills, found)
    return found


def _compare_answer(answer: Received, rows: list[Row], bills: dict[str, int], found: Comparison) -> None:
    name = f"{answer.request_id} {answer.message_id}"
    if not answer.is_whole:
        if answer.message_id and not rows:
            found.answered_without_row.append(name)
        return
    found.whole += 1
    if not rows:
        found.whole_without_row.append(name)
        return
    if len(rows) > 1:
        found.whole_with_two_rows.append(name)
    row = rows[0]
    if row.status != 200 or row.error_type or row.generation_id != answer.message_id:
        found.whole_not_finished.append(f"{name}: {row}")
    costs = {row.cost_nano or 0, answer.cost_nano or 0, bills.get(answer.message_id, 0)}
    found.whole_off_by_nano += max(costs) - min(costs)


def _compare_rows(rows: Sequence[Row], bills: dict[str, int], found: Comparison) -> None:
    requests = Counter(row.request_id for row in rows)
    generations = Counter(row.generation_id for row in rows if row.generation_id)
    found.rows_twice = [name for name, count in (requests + generations).items() if count > 1]
    found.billed_unseen = [name for name, cost in bills.items() if cost > 0 and name not in generations]
    for row in rows:
        if row.is_guessed and row.generation_id:
            found.unknown_with_id.append(f"{row.request_id} {row.generation_id}")
        elif row.is_guessed:
            found.unknown_without_id += 1
        elif row.generation_id and row.cost_nano != bills.get(row.generation_id, 0):
            found.costs_off.append(f"{row}: billed {bills.get(row.generation_id)}")
