"""Where log records go: the log file and stdout, as one JSON line each. Django calls `configure` at start.

A log that can't be written never breaks a request: the line is dropped, and stderr says so once a minute.
"""

from __future__ import annotations

import logging
import logging.config
import os
import select
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opensvm.log_file import LogFile
from opensvm.log_lines import to_line

COMPLAINT_SECONDS = 60.0
STDOUT_WAIT_SECONDS = 0.05
STDOUT_LINE_BYTES = select.PIPE_BUF  # so much is written to a pipe in one piece, or not at all
_SERVING_COMMANDS = frozenset({"serve", "sandbox", "runserver"})


class FileHandler(logging.Handler):
    """Records to a `LogFile`."""

    def __init__(self, path: str, environment: str, max_bytes: int, keep: int) -> None:
        super().__init__()
        self._environment = environment
        self._file = LogFile(Path(path), max_bytes=max_bytes, keep=keep)
        self._complain_after = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(to_line(record, environment=self._environment))
        except OSError as exc:
            self._complain(exc)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _complain(self, exc: OSError) -> None:
        if time.monotonic() < self._complain_after:
            return
        self._complain_after = time.monotonic() + COMPLAINT_SECONDS
        text = f"The log can't be written: {exc}. Make room, or set OPENSVM_LOG_FILE to a file that can be written.\n"
        _try_write(2, text.encode("utf-8", "backslashreplace"))


class StdoutHandler(logging.Handler):
    """Records to standard output. A reader that has stopped reading loses lines here, and never stalls the service."""

    def __init__(self, environment: str, fd: int = 1) -> None:
        super().__init__()
        self._environment = environment
        self._fd = fd
        self._wait_seconds = STDOUT_WAIT_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        line = to_line(record, environment=self._environment, max_bytes=STDOUT_LINE_BYTES)
        written = _is_writable(self._fd, self._wait_seconds) and _try_write(self._fd, line)
        self._wait_seconds = STDOUT_WAIT_SECONDS if written else 0.0


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
    environment = logging_settings["environment"]
    handlers: dict[str, dict[str, Any]] = {
        "file": {
            "()": FileHandler,
            "path": logging_settings["file"],
            "environment": environment,
            "max_bytes": logging_settings["max_bytes"],
            "keep": logging_settings["keep"],
        }
    }
    if _is_open(1) and logs_to_stdout(sys.argv):
        handlers["stdout"] = {"()": StdoutHandler, "environment": environment}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"without_traceback": {"()": WithoutTraceback}, "only_faults": {"()": OnlyFaults}},
            "handlers": handlers,
            "root": {"level": "WARNING", "handlers": list(handlers)},
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


def logs_to_stdout(argv: Sequence[str]) -> bool:
    """Whether this process serves. What a management command prints is its answer: no log line may be in it."""
    if not argv or os.path.basename(argv[0]) not in {"manage.py", "django-admin"}:
        return True
    return len(argv) > 1 and argv[1] in _SERVING_COMMANDS


def _is_open(fd: int) -> bool:
    """A closed descriptor 1 is given to the next file that is opened, which would be the log itself."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_writable(fd: int, wait_seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poll.poll(wait_seconds * 1000))


def _try_write(fd: int, line: bytes) -> bool:
    try:
        os.write(fd, line)
    except OSError:
        return False
    return True
