"""SIGKILL to one process after another, by a seeded choice, while the load goes on."""

from __future__ import annotations

import http.client
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.acceptance.crash.load import Load
from tests.acceptance.service import Service, is_running, wait_until
from tests.postgres import Postgres

PAUSE_SECONDS = (0.1, 1.0)
ANSWERS_BETWEEN = 8
GENTLE_SHARE = 0.9
GENTLE_SECONDS = 5.6
DOWN_SECONDS = (0.0, 1.0)  # how long PostgreSQL stays away
FIRST_SECONDS = 5.5
UP_SECONDS = 60.0
WEIGHTS = {"web process": 10, "web server": 1, "Celery worker": 2, "beat": 1}
POSTGRES_WEIGHTS = {"PostgreSQL": 4, "PostgreSQL session": 2}


class Killer:
    """`killed` counts by what was killed."""

    def __init__(self, service: Service, load: Load, *, seed: int, postgres: Postgres | None = None) -> None:
        self._service = service
        self._load = load
        self._chance = random.Random(f"killer/{seed}")
        self._postgres = postgres
        self._weights = WEIGHTS | (POSTGRES_WEIGHTS if postgres is not None else {})
        self.killed: Counter[str] = Counter()

    def kill(self, times: int) -> None:
        """With a random pause before each, and answers between them: a kill that hits nobody proves nothing."""
        wait_until(self._has_settled, UP_SECONDS)
        for _ in range(times):
            wait_for_answers(self._load, ANSWERS_BETWEEN)
            time.sleep(self._chance.uniform(*PAUSE_SECONDS))
            (target,) = self._chance.choices(list(self._weights), list(self._weights.values()))
            self._methods()[target]()
            self.killed[target] += 1

    def _has_settled(self) -> bool:
        """A process that ends within 5 s of its first start stops the whole service: that is meant so."""
        return all(age_seconds(self._service.child_pid(role)) > FIRST_SECONDS for role in ("web", "worker", "beat"))

    def _methods(self) -> dict[str, Callable[[], None]]:
        return {
            "web process": self._kill_web_process,
            "web server": lambda: self._kill_child("web"),
            "Celery worker": lambda: self._kill_child("worker"),
            "beat": lambda: self._kill_child("beat"),
            "PostgreSQL": self._kill_postgres,
            "PostgreSQL session": self._kill_session,
        }

    def _kill_web_process(self) -> None:
        """Mostly one that has run for a while: when one dies twice in 5.5 s, the server ends all of them."""
        oldest = self._chance.random() < GENTLE_SHARE
        wait_until(lambda: bool(self._web_processes(GENTLE_SECONDS if oldest else 0.0)), UP_SECONDS)
        kill(self._chance.choice(self._web_processes(GENTLE_SECONDS if oldest else 0.0)))

    def _web_processes(self, min_seconds: float) -> list[int]:
        return [pid for pid in children(self._service.child_pid("web")) if age_seconds(pid) >= min_seconds]

    def _kill_child(self, role: str) -> None:
        wait_until(lambda: is_running(self._service.child_pid(role)), UP_SECONDS)
        kill(self._service.child_pid(role))

    def _kill_postgres(self) -> None:
        assert self._postgres is not None
        self._postgres.kill()
        time.sleep(self._chance.uniform(*DOWN_SECONDS))
        self._postgres.start()

    def _kill_session(self) -> None:
        assert self._postgres is not None
        self._postgres.kill_backend()


def answers(service: Service, path: str) -> bool:
    """With 200; nobody may listen at the moment."""
    with suppress(OSError, http.client.HTTPException):
        return service.get(path)[0] == 200
    return False


def children(pid: int) -> list[int]:
    """The running processes that `pid` has started, but Python's own helper."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return [child for child in found if is_running(child) and not _is_helper(child)]


def wait_for_answers(load: Load, count: int) -> None:
    """Until so many more were received whole."""
    before = load.whole
    wait_until(lambda: load.whole >= before + count, UP_SECONDS)


def age_seconds(pid: int) -> float:
    with suppress(OSError):
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return 0.0


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_helper(pid: int) -> bool:
    with suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return True
