"""What the supervisor's tests run as children: `python -m tests.acceptance.processes WHAT [ARGUMENT]`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def sleep() -> None:
    time.sleep(120)


def fail() -> None:
    sys.exit("no such thing as a free lunch")


def speak() -> None:
    print("plain words", flush=True)
    print('{"a": "log line"}', flush=True)
    time.sleep(120)


def ignore_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(sys.argv[2]).write_text(str(os.getpid()))
    time.sleep(120)


def record() -> None:
    """Append our pid to a file, wait, and end cleanly at SIGTERM."""
    with Path(sys.argv[2]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(120)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
