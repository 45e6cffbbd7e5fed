"""What a web process writes down beside the database, so that killing it loses nothing.

One file for each process, `var/journal/<worker id>`, locked while the process lives: who gets the lock of another's
file knows that its owner is dead. One JSON line for each generation id as it comes (written, not synced: it survives
SIGKILL and costs no commit) and one for each settlement that the database did not take in time (synced). The owner
forgets a settlement when the lane has committed it; `keys.services.recovery` replays what a dead owner left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from keys.causes import Cause, Failure
from keys.ledger_items import Caller, FailedTry, Selection, Settlement, Tokens

_COMPACT_AT_BYTES = 1024 * 1024
_SUFFIX = ".journal"


class JournalFull(Exception):
    """The journal is at its size limit: an answer that can't be recorded must not be finished."""


class Journal:
    """The journal of this process. Its methods may be called from any thread; `record` waits for the disk."""

    def __init__(self, folder: Path, worker: UUID, *, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{worker}{_SUFFIX}"
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._generations: dict[UUID, str] = {}
        self._unsettled: set[UUID] = set()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._size = 0

    @property
    def is_full(self) -> bool:
        return self._size >= self._max_bytes

    @property
    def unsettled(self) -> int:
        """Settlements that only this file holds."""
        return len(self._unsettled)

    def note_generation(self, request: UUID, generation_id: str) -> None:
        """Where the cost of `request` can be asked for, should this process die before it settles."""
        with self._guard:
            self._generations[request] = generation_id
            with contextlib.suppress(OSError):  # a full disk costs the id, not the answer
                self._write(_generation_line(request, generation_id))
            if self._size > _COMPACT_AT_BYTES and not self._unsettled:
                self._compact()

    def record(self, settlement: Settlement) -> None:
        """Returns when the settlement is on the disk. Raises `JournalFull` or OSError."""
        line = _line({"settle": to_document(settlement)})
        with self._guard:
            if self._size + len(line) > self._max_bytes:
                raise JournalFull
            before = self._size
            try:
                self._write(line)
                os.fsync(self._fd)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, before)
                    self._size = before
                raise
            self._unsettled.add(settlement.id)

    def forget(self, requests: Iterable[UUID]) -> None:
        """These are in the ledger."""
        with self._guard:
            had_unsettled = bool(self._unsettled)
            for request in requests:
                self._generations.pop(request, None)
                self._unsettled.discard(request)
            if had_unsettled and not self._unsettled:
                self._compact()

    def close(self) -> None:
        """At the end of the process; a journal that still holds a settlement stays for the next one."""
        with self._guard:
            if not self._unsettled:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)

    def _write(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        self._size += written
        if written < len(line):
            raise OSError("the journal's disk is full")

    def _compact(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            self._size = 0
            for request, generation_id in self._generations.items():
                self._write(_generation_line(request, generation_id))


# -- what a dead process left ----------------------------------------------------------------------------------------
@dataclass(slots=True)
class JournalContent:
    generations: dict[UUID, str] = field(default_factory=dict)
    settlements: dict[UUID, Settlement] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrphanJournal:
    """A journal whose owner is dead; locked by this process until `discard` or the end of `take_orphans`."""

    worker: UUID
    path: Path

    def read(self) -> JournalContent:
        """A torn last line, and any other that can't be read, is passed over."""
        content = JournalContent()
        for line in self.path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                _read_line(json.loads(line), content)
        return content

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def take_orphans(folder: Path) -> Iterator[OrphanJournal]:
    """The journals in `folder` that nobody holds, one after the other, each locked while the caller works on it."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else ():
        try:
            worker = UUID(path.name.removesuffix(_SUFFIX))
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (ValueError, FileNotFoundError):
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():  # else another process has just replayed it
                yield OrphanJournal(worker, path)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


# -- lines -----------------------------------------------------------------------------------------------------------
def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _generation_line(request: UUID, generation_id: str) -> bytes:
    return _line({"request": request.hex, "generation": generation_id})


def _read_line(document: dict[str, Any], content: JournalContent) -> None:
    if "settle" in document:
        settlement = from_document(document["settle"])
        content.settlements[settlement.id] = settlement
    else:
        content.generations[UUID(hex=document["request"])] = str(document["generation"])


def to_document(settlement: Settlement) -> dict[str, Any]:
    """A settlement as JSON. Of a key only its id and tail: no secret, sealed or not, is in the journal."""
    document = {name: getattr(settlement, name) for name in _PLAIN_FIELDS}
    return document | {
        "id": settlement.id.hex,
        "client_id": settlement.client_id.hex,
        "key_id": settlement.key_id.hex if settlement.key_id else None,
        "created_at": settlement.created_at.isoformat(),
        "tokens": dataclasses.astuple(settlement.tokens),
        "caller": dataclasses.astuple(settlement.caller),
        "failures": [_failed_to_document(failed) for failed in settlement.failures],
    }


def from_document(document: dict[str, Any]) -> Settlement:
    """Raises KeyError, TypeError or ValueError for what `to_document` did not write."""
    return Settlement(
        **{name: document[name] for name in _PLAIN_FIELDS},
        id=UUID(hex=document["id"]),
        client_id=UUID(hex=document["client_id"]),
        key_id=UUID(hex=document["key_id"]) if document["key_id"] else None,
        created_at=dt.datetime.fromisoformat(document["created_at"]),
        tokens=Tokens(*document["tokens"]),
        caller=Caller(*document["caller"]),
        failures=tuple(_failed_from_document(failed) for failed in document["failures"]),
    )


_SPECIAL_FIELDS = {"id", "client_id", "key_id", "created_at", "tokens", "caller", "failures"}
_PLAIN_FIELDS = tuple(f.name for f in dataclasses.fields(Settlement) if f.name not in _SPECIAL_FIELDS)


def _failed_to_document(failed: FailedTry) -> dict[str, Any]:
    return {
        "n": failed.n,
        "key_id": failed.selection.key_id.hex,
        "tail": failed.selection.tail,
        "cause": failed.failure.cause.value,
        "status": failed.failure.upstream_status,
        "detail": failed.failure.detail or failed.failure.message,
        "duration_ms": failed.duration_ms,
        "at": failed.at.isoformat(),
    }


def _failed_from_document(document: dict[str, Any]) -> FailedTry:
    """Enough for the `Attempt` row; a replay changes no cooldown."""
    key_id = UUID(hex=document["key_id"])
    return FailedTry(
        n=document["n"],
        selection=Selection(key_id, None, "", document["tail"], b"", 0, is_trial=False),
        failure=Failure(
            Cause(document["cause"]), 0, "", "", detail=document["detail"], upstream_status=document["status"]
        ),
        duration_ms=document["duration_ms"],
        at=dt.datetime.fromisoformat(document["at"]),
    )
