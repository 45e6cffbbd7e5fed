"""A real service for the acceptance tests: `manage.py serve` in its own folder, on its own port.

    with Service.sandbox(folder) as service:
        httpx.post(f"{service.url}/v1/messages", headers={"x-api-key": service.client_key()}, json={…})

`Service.sandbox` brings its own upstream; `Service(folder, {...})` is a real pool that asks what
`OPENROUTER_BASE_URL` names, usually the `sandbox` fixture's `base_url`.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from opensvm.serve.addresses import free_port
from tests import hermetic

ROOT = Path(__file__).resolve().parents[2]
TIME_SCALE = "0.05"
# When something hangs. What has to be quick is measured by the test that says so.
START_SECONDS = 90.0
STOP_SECONDS = 60.0
WAIT_SECONDS = 30.0


class Service:
    """One `serve` and everything it started. Its output is in files, so that nothing ever blocks on a full pipe."""

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        *arguments: str,
        program: tuple[str, ...] = (),
        var_dir: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.is_sandbox = "--sandbox" in arguments
        base_dir = var_dir or folder / "var"
        self.var_dir = base_dir / "sandbox" if self.is_sandbox else base_dir
        self.log_file = (self.var_dir if self.is_sandbox else folder) / "logs" / "opensvm.log"
        self.environment = _environment(folder, base_dir, self.port) | dict(variables or {})
        if self.is_sandbox:  # what it would ignore and say so
            for name in {"OPENSVM_LOG_FILE", "OPENROUTER_BASE_URL"} - set(variables or {}):
                del self.environment[name]
        self.command = [*(program or (sys.executable, str(ROOT / "manage.py"), "serve")), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def sandbox(cls, folder: Path, variables: Mapping[str, str] | None = None, *arguments: str) -> Service:
        """`serve --sandbox`: three keys, one client, and an upstream of its own."""
        return cls(folder, variables, "--sandbox", *arguments)

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- Start and end

    def launch(self) -> Service:
        """Start `serve` and come back at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        return self

    def start(self) -> Service:
        """Start `serve` and wait until it has said that it is up."""
        self.launch()
        end = time.monotonic() + START_SECONDS
        while "✓ Using OpenRouter endpoint" not in self.output():
            if self.process.poll() is not None or time.monotonic() > end:
                text = f"{self.output()}\n{self.errors()}"
                self.stop()
                raise AssertionError(f"serve did not start:\n{text}")
            time.sleep(0.05)
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as an operator does; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def kill(self) -> None:
        """SIGKILL to `serve` itself."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def wait_for_exit(self) -> int:
        return self.process.wait(START_SECONDS)

    # -- Its parts

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the service was never started"
        return self._process

    def child_pid(self, role: str) -> int:
        """Of the process that plays `role` ("web", "worker", "beat", "upstream") now."""
        return int([line for line in self.log("child.started") if line["role"] == role][-1]["child"])

    def kill_child(self, role: str, number: int = signal.SIGKILL) -> int:
        """Kill the process of `role` and wait until another plays it; the new pid."""
        old = self.child_pid(role)
        os.kill(old, number)
        wait_until(lambda: self.child_pid(role) != old)
        return self.child_pid(role)

    def descendants(self) -> list[int]:
        """The pids of all processes below `serve`."""
        return _descendants(self.process.pid)

    # -- What it says

    def output(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    def errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """The lines of the log file, all of them or those of one event."""
        if not self.log_file.exists():
            return []
        whole = self.log_file.read_text().rpartition("\n")[0].splitlines()
        lines = [json.loads(line) for line in whole]
        return [line for line in lines if not event or line["event"] == event]

    # -- What one does with it

    def manage(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Another command of `manage.py`, with the settings of this service."""
        variables = self.environment | ({"OPENSVM_SANDBOX": "1"} if self.is_sandbox else {})
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            env=variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def client_key(self, name: str = "", *options: str) -> str:
        """The key of a new client; without a name, in a sandbox, that of the client it came with."""
        if self.is_sandbox and not name:
            return (self.var_dir / "client-key").read_text().strip()
        return self.manage("create_client", name or "test", *options).stdout.strip()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a plain GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def wait_until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Fail the test if `condition` does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds:g} s"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _environment(folder: Path, var_dir: Path, port: int) -> dict[str, str]:
    return hermetic.clean_environment(os.environ) | {
        "OPENSVM_PORT": str(port),
        "OPENSVM_VAR_DIR": str(var_dir),
        "OPENSVM_LOG_FILE": str(folder / "logs" / "opensvm.log"),
        "OPENSVM_TIME_SCALE": TIME_SCALE,
        "OPENSVM_DRAIN": "2",
        "OPENSVM_WORKERS": "1",  # what several processes do, and what is the default, is asked for by name
        "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1",  # nothing answers there: nothing is asked by mistake
    }


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found
