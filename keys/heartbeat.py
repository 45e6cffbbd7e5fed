"""Tells the other processes that this one lives, and settles what dead ones left. Beaten by the lane itself.

A lane that hangs stops its beat, and a beat that fails proves nothing about others: then the watch begins anew.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from django.db import Error, transaction
from django.db.models import F

from keys.models import Worker
from keys.services.recovery import DeathWatch, settle_the_dead

logger = logging.getLogger("opensvm.recovery")


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

    def due_in_seconds(self) -> float:
        return max(self._next - time.monotonic(), 0.0)

    def beat(self) -> None:
        """Raises what the database raises, and nothing else: the lane that beats must go on."""
        self._next = time.monotonic() + self.every_seconds
        try:
            self._write()
            settle_the_dead(self.watch, self.clock(), journals=self.journals, myself=self.worker)
        except Error:
            self.watch.forget()
            raise
        except Exception:
            extra = {"event": "recovery.failed"}
            logger.exception("could not settle what dead processes left", extra=extra)

    def end(self) -> None:
        """This process stops in an orderly way."""
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
