"""Tells the other processes that this one lives, and settles what dead ones left. Beaten by the lane itself.

A lane that hangs stops its beat, and a beat that fails proves nothing about others: then the watch begins anew.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from django.db import Error, transaction
from django.db.models import F

from keys.models import Worker
from keys.services.recovery import DeathWatch, recovery_steps, settle_the_dead

logger = logging.getLogger("opensvm.recovery")

REPLAY_SECONDS = 0.2  # of a beat, for the journals of the dead; so long requests wait
REPLAY_PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class Heartbeat:
    """One for each lane. `beat` takes a transaction, two reads and a look into the folder of journals."""

    worker: UUID
    role: str
    every_seconds: float
    watch: DeathWatch
    clock: Callable[[], dt.datetime]
    journals: Path | None = None  # the folder where this machine's processes keep theirs
    _next: float = field(default=0.0)
    _replay: Iterator[int] | None = field(default=None)  # under way, over several beats

    def due_in_seconds(self) -> float:
        return max(self._next - time.monotonic(), 0.0)

    def beat(self) -> None:
        """Raises what the database raises, and nothing else: the lane that beats must go on."""
        self._next = time.monotonic() + self.every_seconds
        try:
            self._write()
            if self._replay_for_a_while():
                settle_the_dead(self.watch, self.clock, myself=self.worker)
            else:  # the lane has other work; who is dead shows after the journals
                self._next = time.monotonic() + REPLAY_PAUSE_SECONDS
        except Error:
            self._give_up()
            raise
        except Exception:
            self._give_up()
            extra = {"event": "recovery.failed"}
            logger.exception("could not settle what dead processes left", extra=extra)

    def _replay_for_a_while(self) -> bool:
        """Whether nothing is left of the journals of the dead."""
        if self.journals is None:
            return True
        if self._replay is None:
            self._replay = recovery_steps(self.journals, self.clock)
        stop_at = time.monotonic() + REPLAY_SECONDS
        for _ in self._replay:
            if time.monotonic() >= stop_at:
                return False
        self._replay = None
        return True

    def _give_up(self) -> None:
        self._replay = None
        self.watch.forget()

    def end(self) -> None:
        """This process stops in an orderly way."""
        self._replay = None  # its journal is free for the next
        Worker.objects.filter(pk=self.worker).delete()

    def _write(self) -> None:
        with transaction.atomic():
            if not Worker.objects.filter(pk=self.worker).update(beat=F("beat") + 1, beat_at=self.clock()):
                Worker.objects.create(
                    id=self.worker,
                    host=socket.gethostname()[:255],
                    pid=os.getpid(),
                    role=self.role,
                    beat_at=self.clock(),
                )
