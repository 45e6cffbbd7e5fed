"""`bin/test`: lint, types and every test on SQLite and on PostgreSQL. With arguments: just pytest, on SQLite.

Three lanes of steps run beside each other. The last lines are pytest's own closing lines, one for each run; the exit
code is 1 if anything failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import hermetic  # noqa: E402  # the path comes first
from tests.lanes import Lanes, Outcome, Step  # noqa: E402
from tests.postgres import PostgresError, running_postgres  # noqa: E402

PARALLEL = ["-n", "2"]
BY_FILE = ["--dist", "loadfile", "--no-loadscope-reorder"]  # the tests of a file share a running service
POSTGRES = "PostgreSQL"
ACCEPTANCE = "tests/acceptance"
CLIENTS = "tests/acceptance/clients"  # one after the other: the last writes down what ran


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, _end)
    if arguments:
        return subprocess.run(_module("pytest", *arguments), env=_environment()).returncode
    return report(_run_everything())


def report(outcomes: list[Outcome]) -> int:
    """Print a line for each step; pytest's closing lines come last. The exit code."""
    failed = [outcome.name for outcome in outcomes if outcome.exit_code]
    print(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'All passed.'}", flush=True)
    for outcome in outcomes:
        verdict = "failed" if outcome.exit_code else "ok"
        print(f"{outcome.name} ({verdict}, {outcome.seconds:.0f} s): {outcome.summary}", flush=True)
    return 1 if failed else 0


def _run_everything() -> list[Outcome]:
    """PostgreSQL is the server that DATABASE_URL names, or one of our own."""
    given = os.environ.get("DATABASE_URL", "")
    try:
        with nullcontext(given) if given else running_postgres() as url:
            return Lanes(_lanes(url)).run()
    except PostgresError as exc:  # it could not be started: nothing has run yet
        return [*Lanes(_lanes("")).run(), Outcome(POSTGRES, 1, str(exc), 0.0)]


def _lanes(url: str) -> list[list[Step]]:
    """The first wants the processor, the others mostly wait for processes that they start; the second takes longest.

    No `url`: no server.
    """
    steps = [
        [
            Step("lint", _module("ruff", "check", "."), _environment()),
            Step("format", _module("ruff", "format", "--check", "."), _environment()),
            Step("types", _module("mypy", "--config-file", "pyproject.toml"), _environment()),
            _tests("SQLite: unit and integration", *PARALLEL, "tests/unit", "tests/integration"),
        ],
        [_tests("SQLite: acceptance", "-rfEs", "-n", "3", *BY_FILE, ACCEPTANCE, f"--ignore={CLIENTS}")],
        [
            _tests("SQLite: clients", "-rfEs", CLIENTS),
            _tests(f"{POSTGRES}: acceptance", *PARALLEL, *BY_FILE, "-m", "each_database", ACCEPTANCE, url=url),
            _tests(f"{POSTGRES}: integration", *PARALLEL, "tests/integration", url=url),
        ],
    ]
    return [[step for step in lane if url or not step.name.startswith(POSTGRES)] for lane in steps]


def _tests(name: str, *arguments: str, url: str = "") -> Step:
    """Without pytest's cache, which holds the last run of one pytest and not of several."""
    return Step(name, _module("pytest", "-q", "-p", "no:cacheprovider", *arguments), _environment(url))


def _environment(database_url: str = "") -> dict[str, str]:
    variables = hermetic.clean_environment(os.environ)
    return variables | {hermetic.TEST_DATABASE_URL: database_url} if database_url else variables


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # so that every `finally` runs: no server stays behind


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
