"""`bin/bench`: the service beside a bare relay and other gateways, in one run, on this machine.

bin/bench              everything that the README's table shows; about 15 minutes
bin/bench --quick      without the others, in two minutes; --check compares with the committed figures
bin/bench --scale      how it goes on with more keys, clients, ledger rows, processes and open streams
bin/bench --readme     writes the last full run into the README, its chart and the committed figures
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import check, cores, criteria, figures, load, machine, readme, report, results  # noqa: E402
from bench.errors import BenchError  # noqa: E402  # the path comes first
from bench.results import Results  # noqa: E402
from bench.session import Plan, Session  # noqa: E402
from bench.targets import Bench  # noqa: E402
from bench.upstream_control import running_upstream  # noqa: E402

LATEST = ROOT / ".cache" / "bench" / "latest.json"
QUICK = Plan(rounds=3, seconds=1, warm_up_seconds=1, has_details=False)
FULL = Plan(rounds=3, seconds=4, warm_up_seconds=2, has_peers=True, memory_at=(10_000, 100_000))


def main() -> int:
    arguments = _arguments()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, _end)
    try:
        if arguments.readme:
            return readme.write(results.read(arguments.json), ROOT)
        load.require_wrk()
        committed = check.read_baseline() if arguments.check else None
        return _conclude(_measure(arguments), arguments.json, committed)
    except (BenchError, OSError, ValueError) as exc:
        print(f"\n{exc}", file=sys.stderr)
        print("".join(f"\n{note}" for note in getattr(exc, "__notes__", ())), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="SQLite, PostgreSQL and the bare relay alone")
    parser.add_argument("--check", action="store_true", help="exit 1 if ours is 20 %% further from the bare relay")
    parser.add_argument(
        "--scale",
        nargs="?",
        const="",
        metavar="WORD",
        help="the scale curves alone; or those of keys, clients, ... alone",
    )
    parser.add_argument("--memory", action="store_true", help="memory over 100,000 requests alone")
    parser.add_argument("--all", action="store_true", help="the full run and the scale curves, in one file")
    parser.add_argument("--readme", action="store_true", help="write the figures of --json into the README")
    parser.add_argument("--rounds", type=int, help="of each load on each target (3)")
    parser.add_argument("--seconds", type=int, help="of each run (1 with --quick, else 4)")
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the large ledger of --scale")
    parser.add_argument("--postgres-core", choices=("load", "server"), default="load", help="where PostgreSQL runs")
    parser.add_argument("--json", type=Path, default=LATEST, help="where the figures are kept")
    return parser.parse_args()


def plan(arguments: argparse.Namespace) -> Plan:
    base = QUICK if arguments.quick or arguments.check else FULL
    is_scale = arguments.scale is not None
    is_part = is_scale or arguments.memory
    return Plan(
        rounds=arguments.rounds or base.rounds,
        seconds=arguments.seconds or base.seconds,
        warm_up_seconds=base.warm_up_seconds,
        has_peers=base.has_peers,
        memory_at=FULL.memory_at if arguments.memory else () if is_scale else base.memory_at,
        has_main=not is_part or arguments.all,
        has_details=base.has_details,
        scale="" if arguments.all else arguments.scale,
        scale_rows=arguments.rows,
        postgres_on_server_core=arguments.postgres_core == "server",
    )


def _measure(arguments: argparse.Namespace) -> Results:
    chosen, planned = cores.choose(os.sched_getaffinity(0)), plan(arguments)
    with cores.running_on(chosen.load), _folder() as folder:
        idle = machine.idle_share(chosen)
        found = Results(machine.facts(chosen), _method(planned, idle), machine.fsync_ms(folder))
        found.pace.append(machine.pace(chosen.server))
        with running_upstream() as upstream:
            Session(Bench(chosen, upstream, folder), planned, found, _say).run()
        found.pace.append(machine.pace(chosen.server))
    return found


def _method(planned: Plan, idle: dict[str, float]) -> dict[str, str]:
    place = "the server's core" if planned.postgres_on_server_core else "the load's core"
    return {
        "rounds": f"{planned.rounds} of {planned.seconds:g} s, in turn, after {planned.warm_up_seconds:g} s of each",
        "server's core": "one web process, and of ours Celery's worker and beat as in production",
        "load's core": "wrk, the upstream and the benchmark",
        "PostgreSQL": f"fsync on, on {place}; its CPU time is counted apart",
        "idle before": ", ".join(f"{name}'s core {share:.0%}" for name, share in idle.items()),
    }


def _conclude(found: Results, path: Path, committed: check.Ratios | None) -> int:
    """The exit code: 1 when the check fails, 2 when the figures are void."""
    found.write(path)
    print(report.render_all(found), flush=True)
    measured = figures.summarize(found.samples)
    times = criteria.upstream_times(measured)
    if times is not None and times < criteria.UPSTREAM_TIMES:
        return 2
    if committed is None:
        return 0
    lost = list(check.losses(check.ratios(measured), committed))
    print("\n".join(["", *lost] if lost else ["", "No further from the bare relay than the committed figures allow."]))
    return 1 if lost else 0


@contextmanager
def _folder() -> Iterator[Path]:
    """On the disk that `var/` is on, not in a memory that fsync costs nothing in."""
    parent = ROOT / ".cache" / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that everything that was started is stopped


if __name__ == "__main__":
    sys.exit(main())
