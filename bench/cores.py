"""Which core the server runs on and which one the load: processes are started on the core that they belong to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass

from bench.errors import BenchError


@dataclass(frozen=True, slots=True)
class Cores:
    """`server`: the target alone. `load`: wrk, the upstream, PostgreSQL unless told otherwise, and the benchmark."""

    server: int
    load: int


def choose(available: Set[int]) -> Cores:
    """The two highest: the lowest core takes most of a machine's interrupts."""
    if len(available) < 2:
        raise BenchError("The benchmark needs two cores: one for the server, one for the load and the upstream.")
    load, server = sorted(available)[-2:]
    return Cores(server=server, load=load)


@contextmanager
def running_on(core: int) -> Iterator[None]:
    """What is started inside runs on `core`, and so does all that it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
