"""The parts of a run, in the order of the table. Each starts what it measures, and stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

from bench import load, peers, scale, targets
from bench.cores import running_on
from bench.errors import Missing
from bench.load import Order
from bench.own_service import POSTGRES, SQLITE, Setup, running_service
from bench.results import MemoryPoint, Results, TargetFacts
from bench.rounds import Kind, Runner, Step
from bench.targets import Bench, Target
from tests.postgres import Postgres, postgres_server

_MEMORY_CONNECTIONS = 32
_MEMORY_SLICE_SECONDS = 2
_COUNTED_AT = (1, 32)
_POSTGRES = {"fsync": "on", "full_page_writes": "on", "shared_preload_libraries": "pg_stat_statements"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often. `memory_at` counts requests."""

    rounds: int
    seconds: int  # wrk knows no parts of one
    warm_up_seconds: int
    has_peers: bool = False
    memory_at: tuple[int, ...] = ()
    has_main: bool = True
    has_details: bool = True  # of streams
    scale: str | None = None  # a word of the names of the groups that are wanted; none of them without one
    scale_rows: int = 0
    connections: tuple[int, ...] = (1, 32, 128)
    postgres_on_server_core: bool = False

    def steps(self) -> Iterator[Step]:
        for connections in self.connections:
            yield Step(Kind.REQUESTS, connections, self.seconds)
        yield Step(Kind.STREAMS, 32, self.seconds, deltas=200)
        if self.has_details:
            yield Step(Kind.LONG_STREAMS, 32, self.seconds, deltas=1000, only_ours=True)
            yield Step(Kind.PACED, 200, self.seconds, deltas=20 * self.seconds, interval_ms=50)
            yield Step(Kind.FIRST_EVENT, 1, self.seconds, deltas=1)


@dataclass(frozen=True, slots=True)
class Session:
    bench: Bench
    plan: Plan
    results: Results
    say: Callable[[str], None]

    def run(self) -> None:
        with self._postgres() as postgres:
            if self.plan.has_main:
                self._compare(postgres)
            if self.plan.memory_at:
                self._measure_memory(postgres)
            if self.plan.scale is not None:
                self._measure_scale(postgres)

    def runner(self) -> Runner:
        return Runner(self.bench.cores, self.bench.upstream, self.say)

    @contextmanager
    def _postgres(self) -> Iterator[Postgres]:
        core = self.bench.cores.server if self.plan.postgres_on_server_core else self.bench.cores.load
        with ExitStack() as stack:
            with running_on(core):
                server = stack.enter_context(postgres_server(_POSTGRES))
            yield server

    def _compare(self, postgres: Postgres) -> None:
        """Everything side by side, all of it running, the load on one at a time."""
        runner, plan = self.runner(), self.plan
        with ExitStack() as stack:
            measured = [targets.direct(self.bench), stack.enter_context(targets.running_relay(self.bench))]
            for setup in (Setup(SQLITE), Setup(POSTGRES, postgres)):
                counted = replace(setup, counted_at=_COUNTED_AT)
                measured.append(stack.enter_context(running_service(counted, self.bench)))
            if plan.has_peers:
                measured += self._peers(stack)
            self.say(f"All {len(measured)} targets run.")
            runner.run(plan.steps(), measured, rounds=plan.rounds, warm_up_seconds=plan.warm_up_seconds)
            self.results.targets += [_facts(target) for target in measured]
        self.results.samples += runner.samples

    def _peers(self, stack: ExitStack) -> Iterator[Target]:
        for name, running in ((peers.PORTKEY, peers.running_portkey), (peers.LITELLM, peers.running_litellm)):
            self.say(f"Starting {name} (installed at the first time) ...")
            try:
                yield stack.enter_context(running(self.bench))
            except Missing as exc:
                self.results.missing[name] = str(exc)
                self.say(f"{name} is missing: {exc}")

    def _measure_memory(self, postgres: Postgres) -> None:
        setups = (Setup(SQLITE, slug="memory_sqlite"), Setup(POSTGRES, postgres, slug="memory_postgresql"))
        for setup in setups:
            with running_service(setup, self.bench) as target:
                for point in self._memory_points(target):
                    self.say(f"  {point.target}: {point.web_bytes / 1e6:.0f} MB after {point.requests:,} requests")
                    self.results.memory.append(point)

    def _memory_points(self, target: Target) -> Iterator[MemoryPoint]:
        answered, order = 0, Order(target.url, target.headers)
        for wanted in self.plan.memory_at:
            while answered < wanted:
                answered += load.run(order, connections=_MEMORY_CONNECTIONS, seconds=_MEMORY_SLICE_SECONDS).requests
            assert target.ledger is not None
            target.ledger.settled_counts()
            yield MemoryPoint(target.name, wanted, target.web.memory_bytes())

    def _measure_scale(self, postgres: Postgres) -> None:
        runner = self.runner()
        groups = scale.groups(postgres, rows=self.plan.scale_rows)
        for group in (group for group in groups if (self.plan.scale or "") in group.name):
            self.say(f"Scale: {group.name} ...")
            with ExitStack() as stack:
                relay = targets.running_relay(self.bench) if group.has_relay else nullcontext()
                first: Sequence[Target | None] = [stack.enter_context(relay)]
                ours = [stack.enter_context(running_service(setup, self.bench)) for setup in group.setups]
                measured = [target for target in [*first, *ours] if target is not None]
                runner.run(group.steps, measured, rounds=self.plan.rounds, warm_up_seconds=self.plan.warm_up_seconds)
        self.results.scale += runner.samples


def _facts(target: Target) -> TargetFacts:
    return TargetFacts(
        name=target.name,
        version=target.version,
        start_seconds=target.start_seconds,
        memory_bytes=target.tree.memory_bytes(),
        peak_bytes=target.web.peak_bytes(),
        statements=dict(target.statements),
    )
