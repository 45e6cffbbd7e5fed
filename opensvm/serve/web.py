"""The web processes: granian with the options that were measured. Run by `serve` as `python -m opensvm.serve.web`.

No database connection is opened here, and no thread is started that holds a lock: the workers are forked.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django.conf import settings
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server
from granian.server.common import AbstractServer

from opensvm import logs
from opensvm.serve.addresses import Address, require_free
from opensvm.serve.errors import StartError

TARGET = "opensvm.asgi:application"
RESPAWN_SECONDS = 10.0  # longer than a worker's start, so that a reload never leaves us without one
AFTER_DRAIN_SECONDS = 5.0
SERVER_WATCH_SECONDS = 1.0
BACKLOG = 2048
OPEN_CONNECTIONS = 8192  # idle ones count too, and what is over it hangs


def main(target: str = TARGET) -> None:
    try:
        require_free(Address(settings.OPENSVM_HOST, settings.OPENSVM_PORT))
    except StartError as exc:
        sys.exit(str(exc))
    _run_without_preemption()
    os.environ["OPENSVM_WEB_SERVER"] = str(os.getpid())  # the workers end with us
    if serve_pid := os.environ.pop("OPENSVM_SERVE", ""):
        _start_thread("serve-watch", _end_after, int(serve_pid))
    server = build_server(target)
    logs.configure(settings.LOGGING)  # the server has set up its own when it was built
    os.register_at_fork(after_in_child=partial(_watch_server, os.getpid()))
    server.serve()


def _run_without_preemption() -> None:
    """As a batch process, and the workers with us; Linux only.

    A worker's threads wake each other several times for each request. By default the one that wakes takes the core
    from the one that runs, and on a busy core much is lost to that.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _watch_server(server_pid: int) -> None:
    """In a worker: see to it that it ends when the server process is gone.

    Then nobody is left who would end, by force, a worker that hangs on its way out.
    """
    _start_thread("server-watch", _end_with, server_pid)


def _start_thread(name: str, work: Callable[[int], None], pid: int) -> None:
    threading.Thread(target=work, args=(pid,), name=name, daemon=True).start()


def _outlive(parent_pid: int) -> None:
    """Returns when the parent is gone."""
    while os.getppid() == parent_pid:
        time.sleep(SERVER_WATCH_SECONDS)


def _end_after(serve_pid: int) -> None:
    """In the server: end when `serve` is gone.

    The kernel has sent SIGTERM by then. But a signal that comes when Python is about to fall asleep is noticed when
    something else wakes it; so it gets more of them.
    """
    _outlive(serve_pid)
    while True:
        time.sleep(SERVER_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)


def _end_with(server_pid: int) -> None:
    """By the kernel's alarm: a worker that hangs may hold the interpreter's lock, and no thread of ours runs."""
    _outlive(server_pid)
    signal.alarm(math.ceil(settings.OPENSVM_DRAIN_SECONDS + AFTER_DRAIN_SECONDS))
    if sys.platform != "linux":  # there the kernel has sent it already, and granian can't bear a second one
        os.kill(os.getpid(), signal.SIGTERM)


def build_server(target: str) -> AbstractServer[Any]:
    server: AbstractServer[Any] = Server(
        target,
        address=settings.OPENSVM_HOST,
        port=settings.OPENSVM_PORT,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.uvloop,
        workers=settings.OPENSVM_WORKERS,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_SECONDS,
        workers_kill_timeout=math.ceil(settings.OPENSVM_DRAIN_SECONDS + AFTER_DRAIN_SECONDS),
        backlog=BACKLOG,
        backpressure=OPEN_CONNECTIONS,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(settings.HEADER_TIMEOUT_SECONDS * 1000),
            max_buffer_size=settings.MAX_HEADER_BYTES,
        ),
        log_level=LogLevels.warning,
    )
    return server


if __name__ == "__main__":
    main(*sys.argv[1:])
