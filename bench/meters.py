"""What is read before and after a run: clocks of processes and cores, counts of the upstream and of the ledger."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.cores import Cores
from bench.ledger import Counts
from bench.process_tree import Tree
from bench.targets import Target
from bench.upstream_control import UpstreamCounts, UpstreamProcess

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Used:
    """What happened between two readings. Shares are of one core's time."""

    cpu_seconds: float
    database_seconds: float | None
    foreign_share: float
    load_share: float
    connections: int
    requests: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Meters:
    """One reading."""

    at: float
    cpu: float
    database: float | None
    server_core: float
    load_core: float
    is_on_server_core: tuple[bool, bool]  # the target, its database
    upstream: UpstreamCounts
    ledger: Counts | None

    @classmethod
    def read(cls, target: Target, upstream: UpstreamProcess, cores: Cores) -> Meters:
        busy = busy_seconds()
        trees = (target.tree, target.database)
        cpu, database = (tree.cpu_seconds() if tree else None for tree in trees)
        return cls(
            at=time.monotonic(),
            cpu=cpu or 0.0,
            database=database,
            server_core=busy[cores.server],
            load_core=busy[cores.load],
            is_on_server_core=(_runs_on(target.tree, cores.server), _runs_on(target.database, cores.server)),
            upstream=upstream.counts(),
            ledger=target.ledger.settled_counts() if target.ledger else None,
        )

    def __sub__(self, before: Meters) -> Used:
        seconds = self.at - before.at
        cpu = self.cpu - before.cpu
        database = None if self.database is None or before.database is None else self.database - before.database
        on_core, database_on_core = self.is_on_server_core
        ours = cpu * on_core + (database or 0.0) * database_on_core
        return Used(
            cpu_seconds=cpu,
            database_seconds=database,
            foreign_share=max(0.0, (self.server_core - before.server_core - ours) / seconds),
            load_share=(self.load_core - before.load_core) / seconds,
            connections=self.upstream.connections - before.upstream.connections,
            requests=self.upstream.requests - before.upstream.requests,
            rows=self.ledger.rows - before.ledger.rows if self.ledger and before.ledger else None,
        )


def busy_seconds() -> dict[int, float]:
    """For each core, how long it ran programs (user, nice and system time) since the machine started."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            found[int(name.removeprefix("cpu"))] = sum(int(tick) for tick in ticks[:3]) / _TICKS_PER_SECOND
    return found


def _runs_on(tree: Tree | None, core: int) -> bool:
    try:
        return tree is not None and os.sched_getaffinity(tree.root) == {core}
    except ProcessLookupError:
        return False
