"""A log file that several processes append to and rotate, line by line, without losing or tearing any.

Lines go out with one `write` to a descriptor opened with O_APPEND, which the kernel keeps whole. Before each the
path is looked at (one `stat`, about 2 µs): when another process has rotated the file, this one opens the new one. A
line that goes to the old file in between is in the first backup, not lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

RETRY_ROTATION_SECONDS = 10.0


class LogFile:
    """Opened at the first line, so that a process that logs nothing needs no folder. OSError goes to the caller."""

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self.path = path
        self._name = str(path)  # a Path is built again for each system call
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd = -1
        self._inode = (0, 0)
        self._torn = False
        self._rotate_after = 0.0

    def write(self, lines: bytes) -> None:
        """Append `lines`, which end with a newline."""
        self._follow(len(lines))
        if self._torn:
            lines = b"\n" + lines  # the disk was full in the middle of the line before
        try:
            written = os.write(self._fd, lines)
        except OSError:
            self.close()
            raise
        self._torn = written < len(lines)

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd = -1

    def _follow(self, upcoming: int) -> None:
        """Make sure that the descriptor is the file at `path`, and that it has room."""
        try:
            found = os.stat(self._name)
        except FileNotFoundError:
            self._open()
            return
        if found.st_size and found.st_size + upcoming > self._max_bytes and time.monotonic() >= self._rotate_after:
            self._rotate(upcoming)
            self._open()
        elif self._fd < 0 or (found.st_dev, found.st_ino) != self._inode:
            self._open()

    def _open(self) -> None:
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        opened = os.fstat(self._fd)
        self._inode = (opened.st_dev, opened.st_ino)

    def _rotate(self, upcoming: int) -> None:
        """Move the full file to the first backup, unless another process is doing that or has done it.

        A rotation that fails is tried again later; meanwhile the file grows, which is better than a lost line.
        """
        try:
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            self._rotate_after = time.monotonic() + RETRY_ROTATION_SECONDS
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(self.path).st_size + upcoming > self._max_bytes:
                self._shift()
        except (BlockingIOError, FileNotFoundError):
            pass  # another process rotates or has just done so
        except OSError:
            self._rotate_after = time.monotonic() + RETRY_ROTATION_SECONDS
        finally:
            os.close(lock)

    def _shift(self) -> None:
        """Each backup moves up by one; the first gap, or the oldest backup, takes the last of them."""
        free = 1
        while free < self._keep and os.path.exists(f"{self.path}.{free}"):
            free += 1
        for number in range(free, 1, -1):
            os.rename(f"{self.path}.{number - 1}", f"{self.path}.{number}")
        os.rename(self.path, f"{self.path}.1")
