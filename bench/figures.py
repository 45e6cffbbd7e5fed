"""Medians and ratios of what was measured. Pure: samples in, figures out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.rounds import Kind, Sample

Key = tuple[str, Kind, int]  # target, kind, connections


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians over the rounds. `spread` is the distance from lowest to highest rate, as a part of the median.

    `by_round` has the rate of each.
    """

    per_second: float
    by_round: Mapping[int, float]
    spread: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    database_cpu_us: float | None
    foreign_share: float
    load_share: float
    rounds: int

    @property
    def spread_percent(self) -> float:
        return self.spread * 100


Figures = Mapping[Key, Figure]


def summarize(samples: Iterable[Sample]) -> dict[Key, Figure]:
    groups: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.target, sample.kind, sample.connections].append(sample)
    return {key: _figure(group) for key, group in groups.items()}


def _figure(group: list[Sample]) -> Figure:
    rates = [sample.per_second for sample in group]
    database = [sample.database_cpu_us for sample in group if sample.database_cpu_us is not None]
    return Figure(
        per_second=median(rates),
        by_round={sample.round: sample.per_second for sample in group},
        spread=(max(rates) - min(rates)) / median(rates),
        p50_ms=median(sample.p50_ms for sample in group),
        p99_ms=median(sample.p99_ms for sample in group),
        cpu_us=median(sample.cpu_us for sample in group),
        database_cpu_us=median(database) if database else None,
        foreign_share=median(sample.foreign_share for sample in group),
        load_share=median(sample.load_share for sample in group),
        rounds=len(group),
    )


def ratio(figures: Figures, target: str, base: str, kind: Kind, connections: int) -> float | None:
    """How many times the rate of `base` the target reaches; None when one of them was not measured."""
    return times(figures.get((target, kind, connections)), figures.get((base, kind, connections)))


def times(figure: Figure | None, base: Figure | None) -> float | None:
    """The median of the rounds' ratios, not the ratio of medians: what slows a round of the machine slows both."""
    if figure is None or base is None:
        return None
    found = [rate / theirs for number, rate in figure.by_round.items() if (theirs := base.by_round.get(number))]
    return median(found) if found else None
