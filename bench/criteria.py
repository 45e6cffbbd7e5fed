"""What this service is meant to reach, and whether a run shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.figures import Figures, ratio, summarize
from bench.own_service import OURS
from bench.peers import LITELLM, PORTKEY
from bench.results import Results
from bench.rounds import Kind
from bench.targets import DIRECT, RELAY

UPSTREAM_TIMES = 5.0
_CONNECTIONS = (32, 128)
_RATIOS = ((RELAY, 0.5), (PORTKEY, 4.0), (LITELLM, 40.0))
_ADDED_MS, _ADDED_FSYNCS = 1.5, 2
_STREAM_KINDS = (Kind.STREAMS, Kind.LONG_STREAMS)
_STREAM_RATIO = 0.7
_OPEN_STREAMS, _DELAY_MS = 1000, 100.0
_GROWTH = 0.1


@dataclass(frozen=True, slots=True)
class Criterion:
    """`is_met` is None when it was not measured."""

    text: str
    measured: str
    is_met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "NOT MET", None: "not measured"}[self.is_met]


def judge(results: Results) -> list[Criterion]:
    figures = summarize(results.samples)
    found = [*_rates(figures), *_latency(figures, results.fsync_ms), *_streams(figures)]
    return [*found, *_open_streams(summarize(results.scale)), *_memory(results)]


def upstream_times(figures: Figures) -> float | None:
    """How many times what the fastest target needs the upstream itself answers, where that is least."""
    times = []
    for (name, kind, connections), direct in figures.items():
        if name == DIRECT and kind in (Kind.REQUESTS, *_STREAM_KINDS):
            others = [f.per_second for key, f in figures.items() if key[0] != DIRECT and key[1:] == (kind, connections)]
            times += [direct.per_second / max(others)] if others else []
    return min(times, default=None)


def _rates(figures: Figures) -> Iterator[Criterion]:
    for base, least in _RATIOS:
        for name in OURS:
            found = [ratio(figures, name, base, Kind.REQUESTS, connections) for connections in _CONNECTIONS]
            yield _at_least(f"{name}: requests at 32 and 128 connections, of {base}", found, least)


def _streams(figures: Figures) -> Iterator[Criterion]:
    measured = [key[1:] for key in figures if key[0] == RELAY and key[1] in _STREAM_KINDS]
    for name in OURS:
        found = [ratio(figures, name, RELAY, kind, connections) for kind, connections in measured]
        yield _at_least(f"{name}: events of short and long streams, of {RELAY}", found, _STREAM_RATIO)


def _at_least(text: str, found: Iterable[float | None], least: float) -> Criterion:
    known = [value for value in found if value is not None]
    measured = " and ".join(f"{value:.2f}" for value in known)
    return Criterion(f"{text}: at least {least:g}", measured, min(known) >= least if known else None)


def _latency(figures: Figures, fsync_ms: float) -> Iterator[Criterion]:
    most = _ADDED_MS + _ADDED_FSYNCS * fsync_ms
    for name in OURS:
        added = added_ms(figures, name, Kind.REQUESTS, 1)
        text = f"{name}: p50 added at 1 connection: at most {_ADDED_MS:g} ms + {_ADDED_FSYNCS} fsyncs = {most:.2f} ms"
        yield Criterion(text, "" if added is None else f"{added:.2f} ms", None if added is None else added <= most)


def added_ms(figures: Figures, name: str, kind: Kind, connections: int) -> float | None:
    """What the target adds to the upstream's own p50."""
    ours, direct = figures.get((name, kind, connections)), figures.get((DIRECT, kind, connections))
    return ours.p50_ms - direct.p50_ms if ours and direct else None


def _open_streams(scale: Figures) -> Iterator[Criterion]:
    for name in OURS:
        figure = scale.get((name, Kind.PACED, _OPEN_STREAMS))
        text = f"{name}: {_OPEN_STREAMS:,} open streams, p99 event delay: under {_DELAY_MS:g} ms"
        p99 = figure.p99_ms if figure else None
        yield Criterion(text, "" if p99 is None else f"{p99:.0f} ms", None if p99 is None else p99 < _DELAY_MS)


def _memory(results: Results) -> Iterator[Criterion]:
    for name in OURS:
        points = sorted((point.requests, point.web_bytes) for point in results.memory if point.target == name)
        if len(points) >= 2:
            (first, before), (last, after) = points[0], points[-1]
            text = f"{name}: memory after {last:,} requests, of after {first:,}: at most {1 + _GROWTH:g}"
            yield Criterion(text, f"{after / before:.2f}", after <= before * (1 + _GROWTH))
