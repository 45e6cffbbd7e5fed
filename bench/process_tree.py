"""What a process and everything below it uses, read from /proc."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_UTIME = 11  # fields of /proc/PID/stat after the name; then stime, and both again for children that have ended
_CPU_FIELDS = 4


@dataclass(frozen=True, slots=True)
class Tree:
    root: int

    def pids(self) -> list[int]:
        return list(_below(self.root))

    def cpu_seconds(self) -> float:
        """Of user and system, of all that run and of all that have ended below them."""
        return sum(_ticks(pid) for pid in self.pids()) / _TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """What it holds now; a page that several share counts once (PSS)."""
        return sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in self.pids()) * 1024

    def peak_bytes(self) -> int:
        """The most that its largest process has ever held (VmHWM)."""
        return max((_kilobytes(pid, "status", "VmHWM") for pid in self.pids()), default=0) * 1024


def _below(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(task).split():
            yield from _below(int(child))


def _ticks(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(int(field) for field in fields[_UTIME : _UTIME + _CPU_FIELDS])


def _kilobytes(pid: int, file: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _read(Path(f"/proc/{pid}/{file}")), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: Path) -> str:
    """Empty when the process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
