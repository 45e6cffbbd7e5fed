"""Charts of the admin's pages, as data, drawn by `keys/static/keys/charts.js`. Each has its numbers in a table too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["usd", "count", "ms"]
Tone = Literal["a", "b", "c", "d", "e", "f", "good", "bad"]
TONES: tuple[Tone, ...] = ("a", "b", "c", "d", "e", "f")


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart. A value of None is a gap."""

    name: str
    values: list[Any]
    tone: Tone = "a"


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked bars, or lines; `is_across` lays the bars on their side, for long labels."""

    title: str
    unit: Unit
    labels: list[str]
    series: list[Series]
    is_lines: bool = False
    is_across: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the template's `json_script`."""
        return {
            "title": self.title,
            "unit": self.unit,
            "labels": self.labels,
            "kind": "line" if self.is_lines else "bar",
            "across": self.is_across,
            "series": [{"name": one.name, "values": one.values, "tone": one.tone} for one in self.series],
        }
