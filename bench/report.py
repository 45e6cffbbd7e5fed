"""What a run came to, as tables that a stranger can read."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figures import Figures, ratio
from bench.rounds import REQUESTS
from bench.table import number, render
from bench.targets import RELAY


def requests_table(figures: Figures, connections: Sequence[int]) -> str:
    """Rates, their part of the bare relay's, and CPU, for each number of connections."""
    names = list(dict.fromkeys(target for target, kind, _ in figures if kind == REQUESTS))
    heads = ["connections", *(f"{n}" for n in connections for _ in range(4))]
    kinds = ["", *(["req/s", "x relay", "µs CPU", "µs db"] * len(connections))]
    rows = [[name, *(cell for n in connections for cell in _cells(figures, name, n))] for name in names]
    return render("Requests", heads, [kinds, *rows])


def _cells(figures: Figures, name: str, connections: int) -> list[str]:
    figure = figures.get((name, REQUESTS, connections))
    if figure is None:
        return ["-"] * 4
    part = ratio(figures, name, RELAY, REQUESTS, connections)
    return [
        number(figure.per_second),
        number(part, 2),
        number(figure.cpu_us),
        number(figure.database_cpu_us),
    ]
