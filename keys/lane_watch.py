"""Watches the lane's thread from beside: it can't notice by itself that the database keeps it waiting.

One thread for each lane. It looks ten times a second; what follows from a stall is the lane's business.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the database may take for one transaction before something is done about it."""

    admit_seconds: float = 0.7  # then what is not begun yet is refused
    step_seconds: float = 5.0  # then a request that wants another key gives up
    hang_seconds: float = 15.0  # then the connection is given up: the other end may have forgotten it


class LaneWatch:
    """Entered for as long as the lane's thread is at the database; `on_look` is told for how long it has been there."""

    def __init__(self, on_look: Callable[[float], None]) -> None:
        self._on_look = on_look
        self._busy_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lane-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def __enter__(self) -> None:
        self._busy_since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._busy_since = None

    @property
    def busy_seconds(self) -> float:
        """0 while the lane rests."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            if seconds := self.busy_seconds:
                self._on_look(seconds)


def break_off(wrapper: BaseDatabaseWrapper) -> bool:
    """End the connection under a thread that waits for its answer; False if there is none to end.

    A socket whose other end is gone without a word keeps its reader waiting for ever. SQLite has none, and its waits
    are bounded by its own timeout.
    """
    raw: Any = wrapper.connection
    if raw is None or wrapper.vendor != "postgresql":
        return False
    with contextlib.suppress(Exception):  # closed by its own thread in this moment: what we want
        with socket.socket(fileno=os.dup(raw.pgconn.socket)) as twin:
            twin.shutdown(socket.SHUT_RDWR)
        return True
    return False
