"""Runs the load on each target in turn, round after round, and checks after each run that it was a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench import load
from bench.answers import FIXED_EVENTS
from bench.errors import BenchError
from bench.ledger import complaint
from bench.load import Load, Order
from bench.targets import Target
from bench.upstream_control import UpstreamProcess

REQUESTS, STREAMS = "requests", "streams"


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of load, put on every target in every round. `deltas` is for streams alone."""

    kind: str
    connections: int
    seconds: float
    deltas: int = 0

    @property
    def units(self) -> int:
        """How many of what is counted one answer has: itself, or the events of its stream."""
        return self.deltas + FIXED_EVENTS if self.kind == STREAMS else 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `per_second` and the CPU times are for each request, or for each event of streams."""

    target: str
    kind: str
    connections: int
    round: int
    answered: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_us: float
    database_cpu_us: float | None
    upstream_connections: int  # that it opened during the run
    upstream_requests: int
    ledger_rows: int | None


@dataclass(slots=True)
class Runner:
    """`say` is told what is going on."""

    upstream: UpstreamProcess
    say: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)

    def run(self, steps: Iterable[Step], targets: list[Target], *, rounds: int, warm_up_seconds: float) -> None:
        for step in steps:
            if step.kind == STREAMS:
                self.upstream.set_pace(deltas=step.deltas, interval_ms=0)
            for target in targets:
                self.measure(target, step, number=0, seconds=warm_up_seconds)
            for number in range(1, rounds + 1):
                for target in targets:
                    sample = self.measure(target, step, number=number, seconds=step.seconds)
                    self.samples.append(sample)
                    self.say(_line(sample))

    def measure(self, target: Target, step: Step, *, number: int, seconds: float) -> Sample:
        """Raises BenchError when an answer was wrong, a row is missing, or a key was benched."""
        before = _Meters.read(target, self.upstream)
        order = Order(target.url, target.headers, streams=step.kind == STREAMS)
        found = load.run(order, connections=step.connections, seconds=seconds)
        if found.errors or not found.requests:
            raise BenchError(f"{target.name}, {step.connections} connections: {found.requests} answers, {found.errors}")
        after = _Meters.read(target, self.upstream)
        rows = _check_ledger(target, before, after, found, step.connections)
        units = found.requests * step.units
        database = None if before.database is None else (after.database - before.database) * 1e6 / units
        return Sample(
            target=target.name,
            kind=step.kind,
            connections=step.connections,
            round=number,
            answered=found.requests,
            per_second=found.per_second * step.units,
            p50_ms=found.p50_ms,
            p90_ms=found.p90_ms,
            p99_ms=found.p99_ms,
            cpu_us=(after.cpu - before.cpu) * 1e6 / units,
            database_cpu_us=database,
            upstream_connections=after.upstream.connections - before.upstream.connections,
            upstream_requests=after.upstream.requests - before.upstream.requests,
            ledger_rows=rows,
        )


@dataclass(frozen=True, slots=True)
class _Meters:
    cpu: float
    database: Any  # seconds, None without a database server
    upstream: Any
    ledger: Any

    @classmethod
    def read(cls, target: Target, upstream: UpstreamProcess) -> _Meters:
        return cls(
            cpu=target.tree.cpu_seconds(),
            database=target.database.cpu_seconds() if target.database else None,
            upstream=upstream.counts(),
            ledger=target.ledger.settled_counts() if target.ledger else None,
        )


def _check_ledger(target: Target, before: _Meters, after: _Meters, found: Load, connections: int) -> int | None:
    if before.ledger is None:
        return None
    wrong = complaint(before.ledger, after.ledger, answered=found.requests, connections=connections)
    if wrong:
        raise BenchError(f"{target.name}: {wrong}.")
    return int(after.ledger.rows - before.ledger.rows)


def _line(sample: Sample) -> str:
    unit = "events/s" if sample.kind == STREAMS else "requests/s"
    return (
        f"  round {sample.round}  {sample.target:20} {sample.connections:4} connections  "
        f"{sample.per_second:10,.0f} {unit:10}  p50 {sample.p50_ms:7.2f} ms  {sample.cpu_us:6.0f} µs CPU"
    )
