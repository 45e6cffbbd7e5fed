"""What is varied for the scale curves: one thing at a time, the variations of a group side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.own_service import POSTGRES, SQLITE, Setup
from bench.rounds import Kind, Step
from tests.postgres import Postgres

_REQUESTS = (Step(Kind.REQUESTS, 32, 4),)
_STREAM_SECONDS = 10
_EVENTS_PER_SECOND = 10
_OPEN_STREAMS = (10, 100, 1000)


@dataclass(frozen=True, slots=True)
class Group:
    """Services that run at the same time; the first is what the others are measured by."""

    name: str
    setups: tuple[Setup, ...]
    steps: tuple[Step, ...] = _REQUESTS
    has_relay: bool = False


def groups(postgres: Postgres, *, rows: int) -> Iterator[Group]:
    for short, server in (("SQLite", None), ("PostgreSQL", postgres)):
        variations = {
            "keys": [Setup(f"{short}: {n:,} keys", server, pool=n) for n in (3, 100, 1000)],
            "clients": [Setup(f"{short}: {n:,} clients", server, clients=n) for n in (10, 10_000)],
            "ledger rows": [Setup(f"{short}: {n:,} ledger rows", server, rows=n) for n in (0, rows)],
            "web processes": [Setup(f"{short}: {n} web processes", server, workers=n) for n in (1, 2)],
        }
        for name, setups in variations.items():
            yield Group(f"{name} on {short}", tuple(setups))
    yield Group("open streams", _streaming(postgres), _stream_steps(), has_relay=True)


def _streaming(postgres: Postgres) -> tuple[Setup, ...]:
    return (Setup(SQLITE, slug="streams_sqlite"), Setup(POSTGRES, postgres, slug="streams_postgresql"))


def _stream_steps() -> tuple[Step, ...]:
    deltas = _STREAM_SECONDS * _EVENTS_PER_SECOND
    interval = 1000 / _EVENTS_PER_SECOND
    return tuple(Step(Kind.PACED, n, _STREAM_SECONDS, deltas, interval) for n in _OPEN_STREAMS)
