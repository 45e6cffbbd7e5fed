"""Makes load with wrk, and reads what it measured. `bench/post.lua` is its script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError

SCRIPT = Path(__file__).with_name("post.lua")
MODEL = "claude-3-5-sonnet-20241022"
_END_SECONDS = 30.0
_ERRORS = ("connect", "read", "write", "status", "timeout")
_DOCUMENT = {
    "model": MODEL,
    "max_tokens": 1024,
    "temperature": 0.7,
    "system": "You are a careful assistant. Answer in two sentences, and say so when you do not know.",
    "messages": [
        {"role": "user", "content": "What is a round robin, and why would one keep its counter in a database?"},
        {"role": "assistant", "content": [{"type": "text", "text": "It gives each of several servers its turn."}]},
        {"role": "user", "content": [{"type": "text", "text": "And what happens when one of them is limited? " * 6}]},
    ],
    "metadata": {"user_id": "bench"},
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked, and where."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: bool = False
    keys_file: Path | None = None  # client keys, one a line, used in turn; instead of the one in `headers`

    @property
    def body(self) -> str:
        return json.dumps({**_DOCUMENT, "stream": True} if self.streams else _DOCUMENT)

    @property
    def all_headers(self) -> dict[str, str]:
        return {"content-type": "application/json", "anthropic-version": "2023-06-01", **self.headers}


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk measured. Latencies are of whole answers."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    errors: Mapping[str, int]  # by kind, those that happened; "status" is an answer that is none of 2xx and 3xx

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def require_wrk() -> None:
    if shutil.which("wrk") is None:
        raise BenchError("The load is made by wrk, which is not here: apt install wrk, or brew install wrk.")


def run(order: Order, *, connections: int, seconds: int) -> Load:
    """Each connection asks again as soon as it is answered. wrk knows whole seconds only. Raises BenchError."""
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency"]
    command += ["--timeout", "20s", "--script", str(SCRIPT)]
    for name, value in order.all_headers.items():
        command += ["--header", f"{name}: {value}"]
    done = subprocess.run(  # noqa: S603  # our own command, no shell
        [*command, order.url],
        env={**os.environ, "BENCH_BODY": order.body, "BENCH_KEYS": str(order.keys_file or "")},
        capture_output=True,
        text=True,
        timeout=seconds + _END_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return read_output(done.stdout)


def read_output(text: str) -> Load:
    """What `post.lua` wrote in the last line. Raises BenchError when it did not."""
    lines = [line for line in text.splitlines() if line.startswith("BENCH ")]
    if not lines:
        raise BenchError(f"wrk did not say what it measured: {text.strip()[-300:]}")
    told: dict[str, Any] = json.loads(lines[-1].removeprefix("BENCH "))
    return Load(
        requests=told["requests"],
        seconds=told["microseconds"] / 1e6,
        p50_ms=told["p50"] / 1e3,
        p90_ms=told["p90"] / 1e3,
        p99_ms=told["p99"] / 1e3,
        errors={kind: told[kind] for kind in _ERRORS if told[kind]},
    )
