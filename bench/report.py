"""What a run came to, as tables that a stranger can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench import criteria
from bench.criteria import UPSTREAM_TIMES, added_ms, upstream_times
from bench.figures import Figure, Figures, Key, ratio, summarize, times
from bench.results import MemoryPoint, Results, TargetFacts
from bench.rounds import Kind, Sample
from bench.table import megabytes, number, render
from bench.targets import DIRECT, RELAY

_BUSY = 0.05  # of the server's core, taken by others: what is above makes figures too low
_FULL = 0.95  # of the load's core
_STEADY = 0.8  # of the pace before and after, the slower one of the quicker


def render_all(results: Results) -> str:
    figures = summarize(results.samples)
    parts = [_heading(results)]
    if figures:
        parts += [requests_table(figures), latency_table(figures, results.fsync_ms)]
        parts += [cost_table(figures, results.targets), streams_table(figures), process_table(results.targets)]
    parts += [memory_table(results.memory), scale_table(summarize(results.scale)), criteria_table(results)]
    return "\n\n".join(part for part in [*parts, "\n".join(warnings(results))] if part)


def _heading(results: Results) -> str:
    lines = [f"{name}: {value}" for name, value in {**results.machine, **results.method}.items()]
    if results.pace:
        paces = " and then ".join(f"{pace:.0f}" for pace in results.pace)
        lines.append(f"pace of the server's core: {paces} million empty turns of a loop in a second")
    return "\n".join([*lines, *(f"missing: {name}: {why}" for name, why in results.missing.items())])


def requests_table(figures: Figures) -> str:
    numbers = _connections(figures, Kind.REQUESTS)
    heads = ["", *(head for n in numbers for head in (f"{n} conn.", "x relay", "spread"))]
    rows = []
    for name in _names(figures, Kind.REQUESTS):
        cells = []
        for n in numbers:
            figure = figures.get((name, Kind.REQUESTS, n))
            part = ratio(figures, name, RELAY, Kind.REQUESTS, n)
            cells += [_value(figure, "per_second"), number(part, 2), _value(figure, "spread_percent") + " %"]
        rows.append([name, *cells])
    return render("Requests per second, and how many times those of the bare relay", heads, rows)


def latency_table(figures: Figures, fsync_ms: float) -> str:
    numbers = _connections(figures, Kind.REQUESTS)
    heads = ["", *(head for n in numbers for head in (f"p50, {n} conn.", "p99")), "p50 added at 1"]
    rows = []
    for name in _names(figures, Kind.REQUESTS):
        found = [figures.get((name, Kind.REQUESTS, n)) for n in numbers]
        cells = [cell for f in found for cell in (_value(f, "p50_ms", 2), _value(f, "p99_ms", 2))]
        rows.append([name, *cells, number(added_ms(figures, name, Kind.REQUESTS, 1), 2)])
    return render(f"Latency in ms. One fsync here takes {fsync_ms:.2f} ms", heads, rows)


def cost_table(figures: Figures, targets: Sequence[TargetFacts]) -> str:
    numbers = _connections(figures, Kind.REQUESTS)
    counted = sorted({n for facts in targets for n in facts.statements})
    heads = ["", *(head for n in numbers for head in (f"{n} conn.", "+ db")), *(f"statements, {n}" for n in counted)]
    rows = []
    for facts in targets:
        found = [figures.get((facts.name, Kind.REQUESTS, n)) for n in numbers]
        cells = [cell for f in found for cell in (_value(f, "cpu_us"), _value(f, "database_cpu_us"))]
        rows.append([facts.name, *cells, *(number(facts.statements.get(n), 1) for n in counted)])
    return render("CPU time in µs, that of the database server, and database statements, for each request", heads, rows)


def process_table(targets: Sequence[TargetFacts]) -> str:
    heads = ["", "start s", "largest process, peak MB", "all processes MB"]
    rows = [
        [f"{t.name} {t.version}", number(t.start_seconds, 1), megabytes(t.peak_bytes), megabytes(t.memory_bytes)]
        for t in targets
    ]
    return render("The processes", heads, rows)


def streams_table(figures: Figures) -> str:
    heads = ["", "events/s", "x relay", "long", "x relay", "CPU µs, paced", "x relay", "p99 ms", "first ms", "added"]
    rows = []
    for name in _names(figures, Kind.STREAMS):
        cells: list[str] = []
        for kind in (Kind.STREAMS, Kind.LONG_STREAMS):
            found, relay = _only(figures, name, kind), _only(figures, RELAY, kind)
            cells += [_value(found, "per_second"), number(times(found, relay), 2)]
        paced, relay = _only(figures, name, Kind.PACED), _only(figures, RELAY, Kind.PACED)
        cost = paced.cpu_us / relay.cpu_us if paced and relay and relay.cpu_us else None
        cells += [_value(paced, "cpu_us", 1), number(cost, 2), _value(paced, "p99_ms", 1)]
        cells += [_value(_only(figures, name, Kind.FIRST_EVENT), "p50_ms", 2)]
        rows.append([name, *cells, number(added_ms(figures, name, Kind.FIRST_EVENT, 1), 2)])
    title = (
        "Streams: as many events as 32 connections can get, of 206 and of 1,006 a stream; 200 at 20 events/s; the first"
    )
    return render(title, heads, rows) if rows else ""


def _only(figures: Figures, name: str, kind: Kind) -> Figure | None:
    """Of a kind of load that is measured at one number of connections."""
    return next((figure for key, figure in figures.items() if key[:2] == (name, kind)), None)


def memory_table(points: Sequence[MemoryPoint]) -> str:
    counts = sorted({point.requests for point in points})
    if not counts:
        return ""
    found = {(point.target, point.requests): point.web_bytes for point in points}
    names = list(dict.fromkeys(point.target for point in points))
    rows = [[name, *(megabytes(found.get((name, n))) for n in counts)] for name in names]
    return render("Memory of the web processes in MB, after so many requests", ["", *(f"{n:,}" for n in counts)], rows)


def scale_table(figures: Figures) -> str:
    """A variation's first row is what its others are measured by."""
    if not figures:
        return ""
    heads = ["", "connections", "per second", "x first", "p50 ms", "p99 ms", "CPU µs", "x first"]
    rows: list[list[str]] = []
    bases: dict[tuple[str, ...], Figure] = {}
    for key, figure in figures.items():
        base = bases.setdefault(_variation(key), figure)
        cpu = figure.cpu_us / base.cpu_us if base.cpu_us else None
        cells = [number(figure.per_second), number(figure.per_second / base.per_second, 2)]
        cells += [number(figure.p50_ms, 2), number(figure.p99_ms, 2), number(figure.cpu_us, 1), number(cpu, 2)]
        rows.append([f"{key[0]} ({key[1]})", str(key[2]), *cells])
    return render("Scale: requests, or events of streams", heads, rows)


def _variation(key: Key) -> tuple[str, ...]:
    """What is the same in the rows of one: the number of open streams; else the database, and what is counted."""
    name, kind, connections = key
    if kind == Kind.PACED:
        return (kind, str(connections))
    database, _, varied = name.partition(": ")
    return (kind, database, varied.partition(" ")[2])


def criteria_table(results: Results) -> str:
    rows = [[c.text, c.measured, c.verdict] for c in criteria.judge(results) if c.is_met is not None]
    return render("What is to be reached", ["", "measured", ""], rows) if rows else ""


def warnings(results: Results) -> Iterator[str]:
    """What a reader must know before a figure is believed."""
    figures = summarize(results.samples + results.scale)
    times = upstream_times(figures)
    if times is not None:
        yield f"The upstream answers at least {times:.1f} times what the fastest target asks of it."
        if times < UPSTREAM_TIMES:
            yield f"THE FIGURES ARE VOID: the upstream must answer {UPSTREAM_TIMES:g} times that."
    yield from _reuse(results.samples + results.scale)
    busy = max((f.foreign_share for key, f in figures.items() if key[0] != DIRECT), default=0.0)
    if busy > _BUSY:
        yield f"THE MACHINE WAS BUSY: others took up to {busy:.0%} of the server's core. Only CPU times tell something."
    if results.pace and min(results.pace) < _STEADY * max(results.pace):
        yield "THE MACHINE CHANGED ITS PACE meanwhile: compare by ratios, and with no other run."
    full = [key for key, f in figures.items() if f.load_share > _FULL and key[0] != DIRECT]
    if full:
        yield f"The load's core was full at {len(full)} of {len(figures)} figures; one: {', '.join(map(str, full[0]))}."


def _reuse(samples: Sequence[Sample]) -> Iterator[str]:
    ours = [sample for sample in samples if sample.ledger_rows is not None]
    asked, reopened = sum(s.upstream_requests for s in ours), sum(s.reopened for s in ours)
    if asked:
        yield f"Upstream connections: {reopened:,} of {asked:,} requests needed one beyond the load's own number."


def _value(figure: Figure | None, name: str, digits: int = 0) -> str:
    return number(getattr(figure, name) if figure else None, digits)


def _names(figures: Figures, kind: Kind) -> list[str]:
    return list(dict.fromkeys(name for name, found, _ in figures if found == kind))


def _connections(figures: Figures, kind: Kind) -> list[int]:
    return sorted({connections for _, found, connections in figures if found == kind})
