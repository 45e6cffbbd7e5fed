"""What is measured, started and ready: here the upstream itself and the bare relay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cores import Cores, running_on
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.process_tree import Tree
from bench.upstream_control import UpstreamProcess
from opensvm.serve.addresses import free_port
from tests import hermetic

ROOT = Path(__file__).resolve().parent.parent
DIRECT, RELAY = "direct", "bare relay"
_READY_SECONDS = 90.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Target:
    """`tree` is all that it runs, `web` of it what answers; `database` is a server that runs beside it."""

    name: str
    url: str
    tree: Tree
    web: Tree
    headers: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float | None = None
    ledger: Ledger | None = None
    database: Tree | None = None
    keys_file: Path | None = None
    version: str = ""
    statements: Mapping[int, float] = field(default_factory=dict)  # of the database, for each request, by connections


@dataclass(frozen=True, slots=True)
class Bench:
    """What all targets need: where to run, whom to ask, where to leave their files."""

    cores: Cores
    upstream: UpstreamProcess
    folder: Path


def direct(bench: Bench) -> Target:
    tree = Tree(bench.upstream.pid)
    return Target(DIRECT, f"{bench.upstream.base_url}/messages", tree, tree)


@contextmanager
def running_relay(bench: Bench) -> Iterator[Target]:
    """The service's own server with nothing in it."""
    port = free_port()
    variables = hermetic.clean_environment(os.environ) | {
        "OPENSVM_PORT": str(port),
        "OPENSVM_WORKERS": "1",
        "OPENSVM_VAR_DIR": str(bench.folder / "relay"),
        "OPENSVM_LOG_FILE": str(bench.folder / "relay" / "log"),
        "OPENROUTER_BASE_URL": bench.upstream.base_url,
        "DJANGO_SETTINGS_MODULE": "opensvm.settings",
    }
    command = [sys.executable, "-m", "opensvm.serve.web", "bench.relay:application"]
    with running_process("relay", command, variables, bench) as process:
        seconds = wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
        tree = Tree(process.pid)
        yield Target(RELAY, f"http://127.0.0.1:{port}/v1/messages", tree, tree, start_seconds=seconds)


@contextmanager
def running_process(
    name: str, command: list[str], variables: Mapping[str, str], bench: Bench
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on the server's core; what it says goes to a file of its name."""
    folder = bench.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output").open("wb") as output, running_on(bench.cores.server):
        process = subprocess.Popen(  # noqa: S603  # our own command, no shell
            command, env=dict(variables), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    except Exception as exc:
        exc.add_note(f"{name} said: {(folder / 'output').read_text(errors='replace')[-2000:]}")
        raise
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> float:
    """Seconds until `url` answered 200, to the nearest 10 ms."""
    started = time.monotonic()
    while time.monotonic() < started + _READY_SECONDS and process.poll() is None:
        if is_ok(url):
            return time.monotonic() - started
        time.sleep(0.01)
    raise BenchError(f"{url} never answered 200.")


def is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # ours, on loopback
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
