"""Runs the load on each target in turn, round after round, and checks after each run that it was a good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from bench import load, stream_client
from bench.answers import FIXED_EVENTS
from bench.cores import Cores
from bench.errors import BenchError
from bench.ledger import complaint
from bench.load import Load, Order
from bench.meters import Meters
from bench.peers import PEERS
from bench.targets import Target
from bench.upstream_control import UpstreamProcess


class Kind(StrEnum):
    REQUESTS = "requests"  # as many as it can answer
    STREAMS = "streams"  # as many events as it can relay, in short answers
    LONG_STREAMS = "long streams"  # the same in long ones, where little is the start and the end of a stream
    FIRST_EVENT = "first event"  # one stream after the other; latencies are of first events
    PACED = "paced streams"  # events at a fixed rate; latencies are of events


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of load, put on every target in every round. What follows `seconds` is for streams alone."""

    kind: Kind
    connections: int
    seconds: int
    deltas: int = 0
    interval_ms: float = 0.0
    only_ours: bool = False  # and what they are measured by; a slow gateway would finish none

    @property
    def units(self) -> int:
        """How many of what is counted one answer has: itself, or the events of its stream."""
        return 1 if self.kind in (Kind.REQUESTS, Kind.FIRST_EVENT) else self.deltas + FIXED_EVENTS

    def is_for(self, target: str) -> bool:
        return not self.only_ours or target not in PEERS

    def load(self, target: Target, seconds: int) -> Load:
        order = Order(target.url, target.headers, streams=self.kind != Kind.REQUESTS, keys_file=target.keys_file)
        match self.kind:
            case Kind.FIRST_EVENT:
                return stream_client.time_to_first_event(order, seconds=seconds)
            case Kind.PACED:
                return stream_client.event_delays(order, connections=self.connections, ramp_seconds=seconds / 5)
            case _:
                return load.run(order, connections=self.connections, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `per_second` and the CPU times are of units: requests, or events of streams.

    `foreign_share` is the part of the server's core that others took, `load_share` how busy the load's core was.
    """

    target: str
    kind: Kind
    connections: int
    round: int
    answered: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_us: float
    database_cpu_us: float | None
    foreign_share: float
    load_share: float
    upstream_connections: int  # that it opened during the run
    upstream_requests: int
    ledger_rows: int | None

    @property
    def reopened(self) -> int:
        """Connections to upstream beyond one for each of the load's: none, when all are used again."""
        return max(0, self.upstream_connections - self.connections)


@dataclass(slots=True)
class Runner:
    """`say` is told what is going on."""

    cores: Cores
    upstream: UpstreamProcess
    say: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)

    def run(self, steps: Iterable[Step], targets: list[Target], *, rounds: int, warm_up_seconds: int) -> None:
        """ABCABCABC for each step: what changes on the machine meanwhile meets all targets."""
        for step in steps:
            asked = [target for target in targets if step.is_for(target.name)]
            for target in asked:
                self.measure(target, step, number=0, seconds=warm_up_seconds)
            for number in range(1, rounds + 1):
                for target in asked:
                    sample = self.measure(target, step, number=number, seconds=step.seconds)
                    self.samples.append(sample)
                    self.say(_line(sample))

    def measure(self, target: Target, step: Step, *, number: int, seconds: int) -> Sample:
        """Raises BenchError when an answer was wrong, a row is missing, or a key was benched."""
        deltas = step.deltas if number else min(step.deltas, round(step.deltas * seconds / step.seconds) + 1)
        self.upstream.set_pace(deltas=deltas, interval_ms=step.interval_ms)
        before = Meters.read(target, self.upstream, self.cores)
        found = step.load(target, seconds)
        if found.errors or not found.requests:
            raise BenchError(f"{target.name}, {step.connections} connections: {found.requests} answers, {found.errors}")
        after = Meters.read(target, self.upstream, self.cores)
        return _sample(target, step, number, found, before, after)


def _sample(target: Target, step: Step, number: int, found: Load, before: Meters, after: Meters) -> Sample:
    used, units = after - before, found.requests * step.units
    if before.ledger is not None and after.ledger is not None:
        wrong = complaint(before.ledger, after.ledger, answered=found.requests, connections=step.connections)
        if wrong:
            raise BenchError(f"{target.name}: {wrong}.")
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
        cpu_us=used.cpu_seconds * 1e6 / units,
        database_cpu_us=None if used.database_seconds is None else used.database_seconds * 1e6 / units,
        foreign_share=used.foreign_share,
        load_share=used.load_share,
        upstream_connections=used.connections,
        upstream_requests=used.requests,
        ledger_rows=used.rows,
    )


def _line(sample: Sample) -> str:
    unit = "requests/s" if sample.kind in (Kind.REQUESTS, Kind.FIRST_EVENT) else "events/s"
    return (
        f"  {sample.kind:13} round {sample.round}  {sample.target:20} {sample.connections:5} connections "
        f"{sample.per_second:9,.0f} {unit:10}  p50 {sample.p50_ms:7.2f} ms  {sample.cpu_us:6.0f} µs CPU"
    )
