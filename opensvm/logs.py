"""Where log records go: the log file and stdout, as one JSON line each. Django calls `configure` at start.

A log that can't be written never breaks a request: the line is dropped, and stderr says so once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.config
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from opensvm.log_file import LogFile
from opensvm.log_lines import MAX_LINE_BYTES, to_line, to_quick_line

COMPLAINT_SECONDS = 60.0
STDOUT_WAIT_SECONDS = 0.05
STDOUT_WRITE_BYTES = select.PIPE_BUF  # so much is written to a pipe in one piece, or not at all
_Said = tuple[float, int, msgspec.Struct]  # when, at what level, and what
_SERVING_COMMANDS = frozenset({"serve", "sandbox", "runserver"})


class Record(logging.LogRecord):
    """As `logging`'s own, which spends half its time on the names of a place in the code that no line tells."""

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: Any = None,
        sinfo: str | None = None,
    ) -> None:
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.pathname = self.filename = self.module = pathname
        self.lineno = lineno
        self.msg = msg
        self.args = args[0] if len(args) == 1 and args[0] and isinstance(args[0], Mapping) else args
        self.exc_info = exc_info
        self.exc_text = None
        self.funcName = func
        self.stack_info = sinfo
        self.created = now = time.time()
        self.msecs = now % 1 * 1000
        self.relativeCreated = 0.0
        self.thread = self.threadName = self.processName = None
        self.process = os.getpid()


class Sink(Protocol):
    """Where lines go. `write` gets each in one piece, and never raises."""

    max_line_bytes: int

    def write(self, lines: Sequence[bytes]) -> None: ...

    def close(self) -> None: ...


class LineHandler(logging.Handler):
    """Records as lines. What one turn of an event loop logs is written together at its end: each system call there
    may cost a change of threads. Everywhere else a line is written at once.
    """

    def __init__(self, environment: str, sinks: Sequence[Sink]) -> None:
        super().__init__()
        self._environment = environment
        self._sinks = sinks
        self._gathered: list[logging.LogRecord | _Said] = []

    def only_file(self) -> LineHandler:
        return LineHandler(self._environment, [sink for sink in self._sinks if isinstance(sink, FileSink)])

    def emit(self, record: logging.LogRecord) -> None:
        self._gather(record)

    def say(self, level: int, said: msgspec.Struct) -> None:
        """As a record with these fields, of which `event` and `msg` are two, in a third of its time."""
        self.acquire()  # as `handle` does for a record: other threads log too
        try:
            self._gather((time.time(), level, said))
        finally:
            self.release()

    def _gather(self, record: logging.LogRecord | _Said) -> None:
        loop = _running_loop()
        self._gathered.append(record)
        if loop is None:
            self.flush()
        elif len(self._gathered) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        with contextlib.nullcontext() if self.lock is None else self.lock:
            records, self._gathered = self._gathered, []
            if records:
                self._write(records)

    def _write(self, records: Sequence[logging.LogRecord | _Said]) -> None:
        lines: list[bytes] = []
        for sink in self._sinks:
            if not lines or max(map(len, lines)) > sink.max_line_bytes:
                most = sink.max_line_bytes
                lines = [self._line(record, most) for record in records]
            sink.write(lines)

    def _line(self, record: logging.LogRecord | _Said, max_bytes: int) -> bytes:
        if isinstance(record, logging.LogRecord):
            return to_line(record, environment=self._environment, max_bytes=max_bytes)
        created, level, said = record
        return to_quick_line(said, created=created, level=level, environment=self._environment, max_bytes=max_bytes)

    def close(self) -> None:
        self.flush()
        for sink in self._sinks:
            sink.close()
        super().close()


class FileSink:
    """Lines to a `LogFile`."""

    max_line_bytes = MAX_LINE_BYTES

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        self._file = LogFile(Path(path), max_bytes=max_bytes, keep=keep)
        self._complain_after = 0.0

    def write(self, lines: Sequence[bytes]) -> None:
        try:
            self._file.write(b"".join(lines))
        except OSError as exc:
            self._complain(exc)

    def close(self) -> None:
        self._file.close()

    def _complain(self, exc: OSError) -> None:
        if time.monotonic() < self._complain_after:
            return
        self._complain_after = time.monotonic() + COMPLAINT_SECONDS
        text = f"The log can't be written: {exc}. Make room, or set OPENSVM_LOG_FILE to a file that can be written.\n"
        _try_write(2, text.encode("utf-8", "backslashreplace"))


class StdoutSink:
    """Lines to standard output. A reader that has stopped reading loses some here, and never stalls the service."""

    max_line_bytes = STDOUT_WRITE_BYTES

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._wait_seconds = STDOUT_WAIT_SECONDS

    def write(self, lines: Sequence[bytes]) -> None:
        for piece in _pieces(lines, STDOUT_WRITE_BYTES):
            written = self._is_writable() and _try_write(self._fd, piece)
            self._wait_seconds = STDOUT_WAIT_SECONDS if written else 0.0

    def close(self) -> None:
        """It is not ours to close."""

    def _is_writable(self) -> bool:
        ready = self._poll.poll(self._wait_seconds * 1000)
        return bool(ready) and bool(ready[0][1] & select.POLLOUT)


class WithoutTraceback(logging.Filter):
    """For what strangers cause: the message says it all, and a traceback each time would fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return True


class OnlyFaults(logging.Filter):
    """Django logs each 5xx as an error; one that a view answers on purpose, as a 503 of /readyz, is no fault."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is not None


def configure(logging_settings: Mapping[str, Any]) -> None:
    """Send everything to the handlers above. `logging_settings` has file, environment, max_bytes and keep."""
    _skip_unused_facts()
    handler = {
        "()": build_handler,
        "environment": logging_settings["environment"],
        "path": logging_settings["file"],
        "max_bytes": logging_settings["max_bytes"],
        "keep": logging_settings["keep"],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"without_traceback": {"()": WithoutTraceback}, "only_faults": {"()": OnlyFaults}},
            "handlers": {"lines": handler},
            "root": {"level": "WARNING", "handlers": ["lines"]},
            "loggers": {
                "opensvm": {"level": "INFO"},
                "django": {"level": "WARNING", "handlers": [], "propagate": True},
                "django.request": {"level": "ERROR", "filters": ["only_faults"]},  # a client's 4xx is no event of ours
                "django.security.DisallowedHost": {"filters": ["without_traceback"]},
                "django.server": {"level": "WARNING", "handlers": [], "propagate": True},
                "celery": {"level": "WARNING"},
                "_granian": {"level": "WARNING", "handlers": [], "propagate": True},
                "granian.access": {"level": "WARNING", "handlers": [], "propagate": True},
            },
        }
    )


def build_handler(environment: str, path: str, max_bytes: int, keep: int) -> LineHandler:
    sinks: list[Sink] = [FileSink(path, max_bytes, keep)]
    if _is_open(1) and logs_to_stdout(sys.argv):
        sinks.append(StdoutSink())
    return LineHandler(environment, sinks)


def _skip_unused_facts() -> None:
    """A line names no thread and no place in the code; `logging` documents these switches for not looking them up."""
    logging.setLogRecordFactory(Record)
    logging.logThreads = False
    logging.logMultiprocessing = False
    logging._srcfile = None


def line_handler() -> LineHandler | None:
    """Where the lines of this process go; None where something else has them, as in a test."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)), None)


def logs_to_stdout(argv: Sequence[str]) -> bool:
    """Whether this process serves. What a management command prints is its answer: no log line may be in it."""
    if not argv or os.path.basename(argv[0]) not in {"manage.py", "django-admin"}:
        return True
    return len(argv) > 1 and argv[1] in _SERVING_COMMANDS


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _pieces(lines: Sequence[bytes], max_bytes: int) -> Iterator[bytes]:
    """Whole lines, as many as fit into `max_bytes` together."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > max_bytes:
            yield piece
            piece = b""
        piece += line
    yield piece


def _is_open(fd: int) -> bool:
    """A closed descriptor 1 is given to the next file that is opened, which would be the log itself."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _try_write(fd: int, line: bytes) -> bool:
    try:
        os.write(fd, line)
    except OSError:
        return False
    return True
