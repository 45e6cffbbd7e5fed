"""`bin/bench`: the service beside a bare relay and other gateways, in one run, on this machine.

bin/bench --quick      without the others, in two minutes
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import cores, figures, load, report, targets  # noqa: E402  # the path comes first
from bench.errors import BenchError  # noqa: E402
from bench.rounds import REQUESTS, Runner, Step  # noqa: E402
from bench.upstream_control import running_upstream  # noqa: E402
from tests.postgres import postgres_server  # noqa: E402

CONNECTIONS = (1, 32, 128)


def main() -> int:
    arguments = _arguments()
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, _end)
    try:
        load.require_wrk()
        return _measure(arguments)
    except BenchError as exc:
        print(f"\n{exc}", file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without other gateways, in two minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace) -> int:
    chosen = cores.choose(os.sched_getaffinity(0))
    steps = [Step(REQUESTS, connections, arguments.seconds) for connections in CONNECTIONS]
    with cores.running_on(chosen.load), _folder() as folder, running_upstream() as upstream, ExitStack() as stack:
        bench = targets.Bench(chosen, upstream, folder)
        postgres = stack.enter_context(postgres_server(is_durable=True))
        measured = [
            targets.direct(bench),
            stack.enter_context(targets.running_relay(bench)),
            stack.enter_context(targets.running_service(targets.SQLITE, bench)),
            stack.enter_context(targets.running_service(targets.POSTGRES, bench, postgres=postgres)),
        ]
        runner = Runner(upstream, _say)
        runner.run(steps, measured, rounds=arguments.rounds, warm_up_seconds=1.0)
    print(report.requests_table(figures.summarize(runner.samples), CONNECTIONS))
    return 0


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="opensvm-bench-"))
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
