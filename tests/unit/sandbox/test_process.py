"""`python -m opensvm.sandbox`: a process that says where it is, knows its keys, and ends with its parent."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from opensvm.sandbox.remote import Controls

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = re.compile(r"OpenSVM Sandbox \(not OpenRouter\) at (http://127\.0\.0\.1:\d+)/api/v1")
# Starts a sandbox, tells its process id and address, and waits to be killed.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "opensvm.sandbox", "--key", "sk-or-v1-test-a"], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode(), flush=True)
time.sleep(60)
"""


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_serves_the_keys_of_its_file_and_ends_on_sigterm(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys"
    with running("-m", "opensvm.sandbox", "--keys-file", str(keys_file)) as process:
        assert process.stdout is not None
        address = ADDRESS.match(process.stdout.readline())
        assert address is not None
        secret = keys_file.read_text().split()[-1]

        facts = httpx.get(f"{address[1]}/api/v1/key", headers={"Authorization": f"Bearer {secret}"})
        assert facts.status_code == 200
        known = Controls(address[1]).keys()
        assert [key["name"] for key in known] == ["sandbox-1", "sandbox-2", "sandbox-3"]

        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def test_a_reset_over_http_keeps_the_keys(tmp_path: Path) -> None:
    with running("-m", "opensvm.sandbox", "--key", "sk-or-v1-test-a") as process:
        assert process.stdout is not None
        address = ADDRESS.match(process.stdout.readline())
        assert address is not None
        controls = Controls(address[1])
        controls.fail("refused")

        controls.reset()

        assert controls.rules() == []
        assert len(controls.keys()) == 1
        controls.reset(keys=True)
        assert controls.keys() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's end")
def test_it_ends_with_its_parent() -> None:
    with running("-c", PARENT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        assert is_running(pid)

        os.kill(parent.pid, signal.SIGKILL)

        deadline = time.monotonic() + 5
        while is_running(pid):
            assert time.monotonic() < deadline, "the sandbox outlived its parent"
            time.sleep(0.02)


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        done = subprocess.run(
            [sys.executable, "-m", "opensvm.sandbox", "--port", port],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.startswith("The sandbox can't start: ")
    assert "Traceback" not in done.stderr
