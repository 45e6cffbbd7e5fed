"""Steps of `bin/test` beside each other: one lane needs the processor while another waits for its processes.

What a step prints is shown in one piece when it has ended, so that lanes do not mix.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step came to. `summary` is its last line."""

    name: str
    exit_code: int
    summary: str
    seconds: float


@dataclass(slots=True)
class Lanes:
    """Each lane runs its steps one after the other. A step that fails stops no other."""

    lanes: Sequence[Sequence[Step]]
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_stopped: bool = False

    def run(self) -> list[Outcome]:
        """In the order of the lanes. An exception in this thread, as of a signal, ends what runs."""
        with ThreadPoolExecutor(len(self.lanes)) as threads:
            try:
                found = [threads.submit(self._run_lane, lane) for lane in self.lanes]
                return [outcome for lane in found for outcome in lane.result()]
            except BaseException:
                self._stop()
                raise

    def _run_lane(self, lane: Sequence[Step]) -> list[Outcome]:
        return [outcome for step in lane if (outcome := self._run_step(step)) is not None]

    def _run_step(self, step: Step) -> Outcome | None:
        started = time.monotonic()
        process = self._start(step)
        if process is None:
            return None
        output, _ = process.communicate()
        with self._lock:
            self._running.discard(process)
            print(f"\n== {step.name}\n{output}", end="", flush=True)
        lines = output.strip().splitlines()
        return Outcome(step.name, process.returncode, lines[-1] if lines else "", time.monotonic() - started)

    def _start(self, step: Step) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._is_stopped:
                return None
            print(f"-- {step.name} ...", flush=True)
            process = subprocess.Popen(
                step.command, env=step.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            self._running.add(process)
            return process

    def _stop(self) -> None:
        """Each step is a group with all that it has started: asked first, as by Ctrl-C, then killed."""
        with self._lock:
            self._is_stopped = True
            running = list(self._running)
        for process in running:
            _signal_group(process, signal.SIGINT)
        give_up_at = time.monotonic() + STOP_SECONDS
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, give_up_at - time.monotonic()))
            _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
