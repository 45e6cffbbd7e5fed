"""`bin/bench --quick --check`: are we still as near to the bare relay as the committed figures say?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.errors import BenchError
from bench.figures import Figures, ratio
from bench.own_service import OURS
from bench.rounds import Kind
from bench.targets import RELAY

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.2
_CONNECTIONS = (32, 128)

Ratios = Mapping[str, Mapping[str, float]]  # by target and connections


def ratios(figures: Figures) -> dict[str, dict[str, float]]:
    """To the bare relay's requests per second."""
    found: dict[str, dict[str, float]] = {}
    for name in OURS:
        for connections in _CONNECTIONS:
            value = ratio(figures, name, RELAY, Kind.REQUESTS, connections)
            if value is not None:
                found.setdefault(name, {})[str(connections)] = round(value, 4)
    return found


def losses(measured: Ratios, committed: Ratios) -> Iterator[str]:
    """A sentence for each ratio that is more than the tolerance under the committed one."""
    for name, by_connections in committed.items():
        for connections, before in by_connections.items():
            now = measured.get(name, {}).get(connections)
            if now is None:
                yield f"{name}, {connections} connections: not measured; {before:.2f} of the bare relay is committed."
            elif now < before * (1 - TOLERANCE):
                yield f"{name}, {connections} connections: {now:.2f} of the bare relay, after {before:.2f}."


def read_baseline(path: Path = BASELINE) -> Ratios:
    try:
        found: Ratios = json.loads(path.read_text())["ratios"]
    except (OSError, ValueError, KeyError) as exc:
        raise BenchError(
            f"There is no committed figure to check against in {path.name}: make one with bin/bench --readme."
        ) from exc
    return found


def write_baseline(measured: Ratios, machine: Mapping[str, str], path: Path = BASELINE) -> None:
    document = {"ratios": measured, "measured": machine.get("measured", ""), "processor": machine.get("processor", "")}
    path.write_text(json.dumps(document, indent=2) + "\n")
