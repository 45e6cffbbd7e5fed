"""Samples of runs that never were."""

from __future__ import annotations

from dataclasses import replace

from bench.results import Results
from bench.rounds import Kind, Sample

PLAIN = Sample(
    target="ours on SQLite",
    kind=Kind.REQUESTS,
    connections=32,
    round=1,
    answered=1000,
    per_second=1000.0,
    p50_ms=2.0,
    p90_ms=3.0,
    p99_ms=4.0,
    cpu_us=500.0,
    database_cpu_us=None,
    foreign_share=0.0,
    load_share=0.5,
    upstream_connections=32,
    upstream_requests=1000,
    ledger_rows=1000,
)


def rounds(target: str, *rates: float, kind: Kind = Kind.REQUESTS, connections: int = 32) -> list[Sample]:
    """One sample for each rate."""
    return [
        replace(PLAIN, target=target, kind=kind, connections=connections, round=n, per_second=rate)
        for n, rate in enumerate(rates, 1)
    ]


def results(samples: list[Sample]) -> Results:
    return Results({"measured": "2026-01-01"}, {"rounds": "3 of 1 s"}, 0.5, samples=samples)
