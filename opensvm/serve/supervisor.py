"""Keeps a group of processes running and ends it as a whole.

A process that ends right after its first start, or before it was ever up, stops the group; one that ends later is
started again while the others go on. Children ignore the terminal's Ctrl-C (own process group): only the supervisor
ends them, with SIGTERM, and by force when their time to finish is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opensvm.serve.addresses import answers
from opensvm.serve.children import ChildSpec
from opensvm.serve.errors import ChildFailed, StartError

logger = logging.getLogger("opensvm.serve")

FIRST_SECONDS = 5.0  # a process that ends sooner has a fault that a restart won't mend
UP_SECONDS = 60.0
UP_POLL_SECONDS = 0.1
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a process that ran for so long starts with the first delay again
AFTER_DRAIN_SECONDS = 7.0  # the web process ends its own workers by force after 5
OUTPUT_LINES = 20
LAST_OUTPUT_SECONDS = 0.5
OUTPUT_LINE_BYTES = 64 * 1024
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def delay_before_restart(restarts: int) -> float:
    """Seconds to wait when there were `restarts` in a row without a steady run."""
    return float(min(FIRST_DELAY_SECONDS * 2 ** min(restarts, 10), LONGEST_DELAY_SECONDS))


class ProcessEnd(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells when the process itself has ended; asyncio's `wait` also waits for grandchildren that share its output."""

    def __init__(self) -> None:
        super().__init__(limit=OUTPUT_LINE_BYTES, loop=asyncio.get_running_loop())
        self.has_ended = asyncio.Event()

    def process_exited(self) -> None:
        self.has_ended.set()
        super().process_exited()


class Child:
    """One process at a time, made from a spec. What it writes besides log lines becomes log lines."""

    def __init__(self, spec: ChildSpec, environment: Mapping[str, str], folder: Path) -> None:
        self.spec = spec
        self.was_up = spec.address is None
        self.output: deque[str] = deque(maxlen=OUTPUT_LINES)
        self._environment = {**environment, **spec.environment}
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False

    async def run(self) -> int:
        """Start the process and wait for its end; the exit code."""
        loop = asyncio.get_running_loop()
        transport, end = await loop.subprocess_exec(
            ProcessEnd,
            *self.spec.command,
            env=self._environment,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=None if self.spec.shares_stdout else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0,
        )
        self._process = process = asyncio.subprocess.Process(transport, end, loop)
        logger.info("started process", extra={"event": "child.started", "role": self.spec.role, "child": process.pid})
        if self._is_stopping:
            self.stop()
        await self._relay_output(process, end)
        transport.close()
        return process.returncode or 0

    async def wait_until_up(self) -> None:
        while not self.was_up:
            if self.spec.address is not None and await answers(self.spec.address, self.spec.path):
                self.was_up = True
                return
            await asyncio.sleep(UP_POLL_SECONDS)

    def stop(self) -> None:
        """Ask it to finish; one that is just being started is asked as soon as it runs."""
        self._is_stopping = True
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        if self._process is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End it, and what it started, by force."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _relay_output(self, process: asyncio.subprocess.Process, end: ProcessEnd) -> None:
        """Until the process has ended. A grandchild that keeps its output open does not keep us waiting."""
        streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        readers = [asyncio.create_task(self._read_lines(stream)) for stream in streams]
        await end.has_ended.wait()
        await asyncio.wait(readers, timeout=LAST_OUTPUT_SECONDS)
        for reader in readers:
            reader.cancel()

    async def _read_lines(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit; the reader has dropped it
                continue
            if not line:
                return
            if line.startswith(b"{"):
                _pass_on(line)
            elif text := line.decode("utf-8", "replace").strip():
                self.output.append(text)
                logger.info("%s", text, extra={"event": "child.output", "role": self.spec.role})


class Supervisor:
    """Runs the children of `specs`, in one event loop, until a signal or a failed start."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        environment: Mapping[str, str],
        folder: Path,
        drain_seconds: float,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        self._children = [Child(spec, environment, folder) for spec in specs]
        self._patience_seconds = drain_seconds + AFTER_DRAIN_SECONDS
        self._first_seconds = first_seconds
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._has_terminal = sys.stdin is not None and sys.stdin.isatty()

    async def run(self, when_up: Callable[[], Awaitable[None]]) -> None:
        """Return when a signal asked for the end and all children have ended; raise StartError for a failed start.

        `when_up` is awaited once, when every child with an address answers.
        """
        self._take_signals()
        keepers = {child: asyncio.create_task(self._keep(child)) for child in self._children}
        others = [asyncio.create_task(self._announce(when_up)), asyncio.create_task(self._stopping.wait())]
        tasks: list[asyncio.Task[Any]] = [*keepers.values(), *others]
        failure = await _first_failure(tasks, until=tasks[-1])
        self._stopping.set()
        for last in (False, True):
            await self._stop_children({child: task for child, task in keepers.items() if child.spec.stops_last is last})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failure is not None:
            raise failure

    async def _keep(self, child: Child) -> None:
        restarts = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await child.run()
            lived = time.monotonic() - started
            if self._stopping.is_set():
                return
            if restarts == 0 and (lived < self._first_seconds or not child.was_up):
                raise ChildFailed(child.spec.role, code, list(child.output))
            restarts = 1 if lived >= STEADY_SECONDS else restarts + 1
            delay = delay_before_restart(restarts - 1)
            extra = {"event": "child.ended", "role": child.spec.role, "exit_code": code, "restart_seconds": delay}
            logger.error("process ended, starting it again", extra=extra)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _announce(self, when_up: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(UP_SECONDS):
                for child in self._children:
                    await child.wait_until_up()
        except TimeoutError as exc:
            late = next(child.spec for child in self._children if not child.was_up)
            raise StartError(f"The {late.role} process does not answer on {late.address}: see the log.") from exc
        await when_up()

    async def _stop_children(self, keepers: Mapping[Child, asyncio.Task[None]]) -> None:
        """Until they have ended; by force when their time is over or a second signal came."""
        for child in keepers:
            child.stop()
        all_ended = asyncio.gather(*keepers.values(), return_exceptions=True)
        hurry = asyncio.create_task(self._hurry.wait())
        waiting: set[asyncio.Future[Any]] = {all_ended, hurry}
        await asyncio.wait(waiting, timeout=self._patience_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for child in keepers:
            if child.is_running:
                extra = {"event": "child.killed", "role": child.spec.role}
                logger.error("process did not stop in time, killing it", extra=extra)
                child.kill()
        await all_ended

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_signal if self._has_terminal else self._renew)

    def _on_signal(self) -> None:
        """The first asks the children to finish, the second does not wait for them."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _renew(self) -> None:
        """SIGHUP from an operator; with a terminal it means that the terminal is gone, and ends the service."""
        for child in self._children:
            if child.spec.renews and not self._stopping.is_set():
                logger.info("replacing processes", extra={"event": "child.renewed", "role": child.spec.role})
                child.send(signal.SIGHUP)


def _pass_on(line: bytes) -> None:
    """A log line of a child, to where our own go."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


async def _first_failure(tasks: Sequence[asyncio.Task[object]], *, until: asyncio.Task[object]) -> BaseException | None:
    """The exception of the first task that fails; None when `until` is done before."""
    waiting = set(tasks)
    while until in waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is not None:
                return task.exception()
    return None
