"""All that a run measured, as one document: written to a file, read again for the README, the chart and `--check`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.rounds import Kind, Sample

FORMAT = 1


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What is measured once for each target. Memory: of all its processes now, and the most that one ever held."""

    name: str
    version: str
    start_seconds: float | None
    memory_bytes: int
    peak_bytes: int
    statements: dict[int, float]


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """What the web processes hold after so many requests."""

    target: str
    requests: int
    web_bytes: int


@dataclass(slots=True)
class Results:
    machine: dict[str, str]
    method: dict[str, str]
    fsync_ms: float
    targets: list[TargetFacts] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    scale: list[Sample] = field(default_factory=list)
    memory: list[MemoryPoint] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)  # of the server's core before and after: see `bench.machine`
    missing: dict[str, str] = field(default_factory=dict)  # a peer that could not be had, and why

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


def read(path: Path) -> Results:
    """Raises OSError or ValueError."""
    found: dict[str, Any] = json.loads(path.read_text())
    if found.pop("format", None) != FORMAT:
        raise ValueError(f"{path} was written by another version of the benchmark.")
    return Results(
        **found
        | {
            "targets": [_facts(entry) for entry in found["targets"]],
            "samples": [_sample(entry) for entry in found["samples"]],
            "scale": [_sample(entry) for entry in found["scale"]],
            "memory": [MemoryPoint(**entry) for entry in found["memory"]],
        }
    )


def _facts(entry: dict[str, Any]) -> TargetFacts:
    return TargetFacts(**entry | {"statements": {int(n): value for n, value in entry["statements"].items()}})


def _sample(entry: dict[str, Any]) -> Sample:
    return Sample(**entry | {"kind": Kind(entry["kind"])})
