"""The figures of a run, as a small table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.acceptance.crash.ledgers import Comparison
from tests.acceptance.crash.load import Received


def table(title: str, lines: Iterable[tuple[str, object]]) -> str:
    found = [(name, str(value)) for name, value in lines]
    width = max(len(name) for name, _ in found)
    return "\n".join(["", title, *(f"  {name.ljust(width)}  {value}" for name, value in found)])


def figures(
    received: Sequence[Received], killed: Counter[str], found: Comparison, more: Iterable[tuple[str, object]]
) -> list[tuple[str, object]]:
    outcomes = Counter(answer.outcome for answer in received)
    return [
        ("killed", _counts(killed)),
        ("requests sent", len(received)),
        ("as clients saw them", _counts(outcomes)),
        ("received whole", found.whole),
        ("  without a row", len(found.whole_without_row)),
        ("  with two rows", len(found.whole_with_two_rows)),
        ("  nano-dollars off", found.whole_off_by_nano),
        ("rows in the ledger", found.rows),
        ("  cost differs from the bill", len(found.costs_off)),
        ("  cost unknown, upstream's id known", len(found.unknown_with_id)),
        ("  cost unknown, killed before an id came", found.unknown_without_id),
        ("billed by upstream", found.billed),
        ("  named by no row", len(found.billed_unseen)),
        *more,
    ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"
