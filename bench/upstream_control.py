"""The benchmark's upstream as seen by the benchmark: its process, what it was asked, how its streams run."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class UpstreamCounts:
    """Since its start: connections accepted, requests for an answer, and how many of those were streams."""

    connections: int
    open: int
    requests: int
    streams: int


@dataclass(frozen=True, slots=True)
class UpstreamProcess:
    port: int
    pid: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def counts(self) -> UpstreamCounts:
        return UpstreamCounts(**self._ask("GET"))

    def set_pace(self, *, deltas: int, interval_ms: float) -> None:
        """How streams that begin from now on run; without an interval as fast as they are read."""
        self._ask("POST", {"deltas": deltas, "interval_ms": interval_ms})

    def _ask(self, method: str, document: dict[str, float] | None = None) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, "/bench", json.dumps(document) if document else None)
            found: dict[str, int] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()


@contextmanager
def running_upstream() -> Iterator[UpstreamProcess]:
    command = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield UpstreamProcess(int(process.stdout.readline()), process.pid)
        finally:
            process.stdin.close()
