"""`bin/test`: lint, types and every test on SQLite and on PostgreSQL. With arguments: just pytest, on SQLite.

The last lines are pytest's own closing lines, one for each run; the exit code is 1 if anything failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import hermetic  # noqa: E402  # the path comes first
from tests.postgres import PostgresError, running_postgres  # noqa: E402

PACKAGES = ["opensvm", "keys", "proxy", "tests", "manage.py"]
PARALLEL = ["-n", "3"]  # on two cores: most of them wait for a process or a database at any moment
BY_FILE = ["-n", "3", "--dist", "loadfile"]  # the tests of a file share a running service
CLIENTS = "tests/acceptance/clients"  # one after the other: the last writes down what ran


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step came to. `summary` is its last line."""

    name: str
    exit_code: int
    summary: str
    seconds: float


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, _end)
    if arguments:
        return subprocess.run(_pytest(arguments), env=_environment()).returncode
    outcomes = [*_static_checks(), *_sqlite_tests(), *_postgres_tests()]
    return report(outcomes)


def report(outcomes: list[Outcome]) -> int:
    """Print a line for each step; pytest's closing lines come last. The exit code."""
    failed = [outcome.name for outcome in outcomes if outcome.exit_code]
    print(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'All passed.'}", flush=True)
    for outcome in outcomes:
        verdict = "failed" if outcome.exit_code else "ok"
        print(f"{outcome.name} ({verdict}, {outcome.seconds:.0f} s): {outcome.summary}", flush=True)
    return 1 if failed else 0


def _static_checks() -> list[Outcome]:
    return [
        _run("lint", _module("ruff", "check", ".")),
        _run("format", _module("ruff", "format", "--check", ".")),
        _run("types", _module("mypy", "--config-file", "pyproject.toml")),
    ]


def _sqlite_tests() -> list[Outcome]:
    return [
        _run("SQLite: unit and integration", _pytest(["-q", *PARALLEL, "tests/unit", "tests/integration"])),
        _run("SQLite: acceptance", _pytest(["-q", "-rs", *BY_FILE, "tests/acceptance", f"--ignore={CLIENTS}"])),
        _run("SQLite: clients", _pytest(["-q", "-rs", CLIENTS])),
    ]


def _postgres_tests() -> list[Outcome]:
    """On the server that DATABASE_URL names, or on one of our own."""
    given = os.environ.get("DATABASE_URL", "")
    if given:
        return _tests_on(given)
    try:
        with running_postgres() as url:
            return _tests_on(url)
    except PostgresError as exc:
        print(exc, file=sys.stderr, flush=True)
        return [Outcome("PostgreSQL", 1, str(exc), 0.0)]


def _tests_on(url: str) -> list[Outcome]:
    acceptance = ["-q", *BY_FILE, "-m", "each_database", "tests/acceptance"]
    return [
        _run("PostgreSQL: integration", _pytest(["-q", *PARALLEL, "tests/integration"]), database_url=url),
        _run("PostgreSQL: acceptance", _pytest(acceptance), database_url=url),
    ]


def _run(name: str, command: list[str], *, database_url: str = "") -> Outcome:
    """Run one step, showing its output as it comes."""
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    last = ""
    process = subprocess.Popen(command, env=_environment(database_url), stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return Outcome(name, code, last, time.monotonic() - started)


def _environment(database_url: str = "") -> dict[str, str]:
    variables = hermetic.clean_environment(os.environ)
    return variables | {hermetic.TEST_DATABASE_URL: database_url} if database_url else variables


def _pytest(arguments: list[str]) -> list[str]:
    return _module("pytest", *arguments)


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # so that every `finally` runs: no server stays behind


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
