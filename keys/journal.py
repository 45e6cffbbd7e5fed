"""What a web process writes down beside the database, so that killing it loses nothing.

One file for each process, `var/journal/<worker id>.journal`, locked while the process lives: who gets the lock of
another's file knows that its owner is dead. One JSON line for each generation id as it comes (written, not synced: it
survives SIGKILL and costs no commit) and one for each settlement that the database did not take in time (synced). The
owner forgets a settlement when the lane has committed it; `keys.services.recovery` replays what a dead owner left.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import msgspec

from keys.causes import Cause, Failure
from keys.ledger_items import Caller, FailedTry, Selection, Settlement, Tokens

_COMPACT_AT_BYTES = 1024 * 1024
_SUFFIX = ".journal"
_NEW_SUFFIX = ".new"  # of a file that is not yet, or not any more, anybody's journal
_BAD_SUFFIX = ".bad"
_ALL_LINES = 1_000_000
_DISK_FULL = "the journal's disk is full"


class JournalFull(Exception):
    """The journal is at its size limit: an answer that can't be recorded must not be finished."""


class Journal:
    """The journal of this process. Its methods may be called from any thread; `record` waits for the disk."""

    def __init__(self, folder: Path, worker: UUID, *, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{worker}{_SUFFIX}"
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._generations: dict[int, str] = {}  # by the request's id: a number is hashed in a tenth of a UUID's time
        self._unwritten: list[bytes] = []  # of `_generations`
        self._unsettled: set[UUID] = set()
        self._size = 0
        self._name_is_synced = False
        self._is_closed = False
        self._fd = self._create(b"")

    @property
    def is_full(self) -> bool:
        return self._size >= self._max_bytes

    @property
    def unsettled(self) -> int:
        """Settlements that only this file holds."""
        return len(self._unsettled)

    def note_generation(self, request: UUID, generation_id: str) -> None:
        """Where the cost of `request` can be asked for, should this process die before it settles.

        In an event loop, what one turn of it notes is one write at its end.
        """
        with self._guard:
            self._generations[request.int] = generation_id
            self._unwritten.append(_generation_line(request.int, generation_id))
            is_first = len(self._unwritten) == 1
        if is_first:
            _at_the_end_of_the_turn(self._write_notes)

    def _write_notes(self) -> None:
        with self._guard:
            self._write_unwritten()
            if self._size > _COMPACT_AT_BYTES and not self._unsettled:
                self._compact()

    def _write_unwritten(self) -> None:
        notes, self._unwritten = self._unwritten, []
        with contextlib.suppress(OSError):  # a full disk costs the ids, not the answers
            self._write(b"".join(notes))

    def record(self, settlement: Settlement) -> None:
        """Returns when the settlement is on the disk. Raises `JournalFull` or OSError."""
        line = _line({"settle": to_document(settlement)})
        with self._guard:
            if self._size + len(line) > self._max_bytes:
                raise JournalFull
            self._write(line)
            self._unsettled.add(settlement.id)
            fd = os.dup(self._fd)
        # Outside of the guard: streams that begin note their ids meanwhile, and the disk may be slow.
        try:
            os.fsync(fd)
            self._sync_name()
        finally:
            os.close(fd)

    def forget(self, requests: Iterable[UUID]) -> None:
        """These are in the ledger."""
        with self._guard:
            if self._is_closed:  # a lane that hung outlived its time; who finds the file settles once more
                return
            had_unsettled = bool(self._unsettled)
            for request in requests:
                self._generations.pop(request.int, None)
                if had_unsettled:
                    self._unsettled.discard(request)
            if had_unsettled and not self._unsettled:
                self._compact()

    def close(self) -> None:
        """At the end of the process; a journal that still knows of an unsettled request stays for the next one."""
        with self._guard:
            self._write_unwritten()
            if not self._unsettled and not self._generations:
                self._path.unlink(missing_ok=True)
            self._is_closed = True
            os.close(self._fd)

    def _create(self, content: bytes) -> int:
        """A locked file with `content`, put in the journal's place at once: nobody ever finds it unlocked or half."""
        new = self._path.with_suffix(_SUFFIX + _NEW_SUFFIX)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(fd, content) < len(content):
                raise OSError(_DISK_FULL)
            new.rename(self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            os.close(fd)
            raise
        self._size = len(content)
        self._name_is_synced = False
        return fd

    def _sync_name(self) -> None:
        """A file that a power cut takes out of its folder is as good as lost."""
        with self._guard:
            named = self._fd
            if self._name_is_synced:
                return
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        with self._guard:
            self._name_is_synced = self._fd == named

    def _write(self, line: bytes) -> None:
        """Raises OSError with nothing written."""
        if self._is_closed:
            raise OSError("the journal is closed")
        written = os.write(self._fd, line)
        if written < len(line):
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise OSError(_DISK_FULL)
        self._size += written

    def _compact(self) -> None:
        """Keep the generation ids of requests under way. For when no settlement is in the file."""
        content = b"".join(_generation_line(request, name) for request, name in self._generations.items())
        try:
            fd = self._create(content)
        except OSError:  # a full disk: making room comes first
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
                self._size = 0
                self._write(content)
        else:
            os.close(self._fd)
            self._fd = fd


def _at_the_end_of_the_turn(write: Callable[[], None]) -> None:
    """At once where no event loop runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        write()
    else:
        loop.call_soon(write)


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
        """All of it at once."""
        content = JournalContent()
        for part in self.read_parts(_ALL_LINES):
            content.generations |= part.generations
            content.settlements |= part.settlements
        return content

    def read_parts(self, lines: int) -> Iterator[JournalContent]:
        """A torn last line, and any other that can't be read, is passed over. Raises OSError."""
        with self.path.open("rb") as file:
            while some := list(itertools.islice(file, lines)):
                content = JournalContent()
                for line in some:
                    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                        _read_line(json.loads(line), content)
                yield content

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(_SUFFIX + _NEW_SUFFIX).unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Keep it for an operator under a name that is not taken again."""
        return self.path.rename(self.path.with_suffix(_SUFFIX + _BAD_SUFFIX))


def take_orphans(folder: Path) -> Iterator[OrphanJournal]:
    """The journals in `folder` that nobody holds, one after the other, each locked while the caller works on it."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else ():
        try:
            worker = UUID(path.name.removesuffix(_SUFFIX))
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (ValueError, OSError):  # no journal, gone by now, or another user's
            continue
        try:
            if _lock(fd) and _is_same_file(fd, path):  # else another process has just replayed or rewritten it
                yield OrphanJournal(worker, path)
        finally:
            os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


# -- lines -----------------------------------------------------------------------------------------------------------
def _line(document: dict[str, Any]) -> bytes:
    """With a line end on both sides: a line before it that was torn can't spoil it."""
    return b"\n" + json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _generation_line(request: int, generation_id: str) -> bytes:
    return b'\n{"request":"%032x","generation":%b}\n' % (request, msgspec.json.encode(generation_id))


def _read_line(document: dict[str, Any], content: JournalContent) -> None:
    if "settle" in document:
        settlement = from_document(document["settle"])
        content.settlements[settlement.id] = settlement
    else:
        content.generations[UUID(hex=document["request"])] = _checked(document["generation"], str)


def to_document(settlement: Settlement) -> dict[str, Any]:
    """A settlement as JSON. Of a key only its id and tail: no secret, sealed or not, is in the journal."""
    document = {name: getattr(settlement, name) for name in _PLAIN_FIELDS}
    return document | {
        "id": settlement.id.hex,
        "client_id": settlement.client_id.hex,
        "key_id": settlement.key_id.hex if settlement.key_id else None,
        "created_at": settlement.created_at.isoformat(),
        "tokens": msgspec.structs.astuple(settlement.tokens),
        "caller": msgspec.structs.astuple(settlement.caller),
        "failures": [_failed_to_document(failed) for failed in settlement.failures],
    }


def from_document(document: dict[str, Any]) -> Settlement:
    """Raises AttributeError, KeyError, TypeError or ValueError for what `to_document` did not write."""
    return Settlement(
        **{name: _checked(document[name], kind) for name, kind in _PLAIN_FIELDS.items()},
        id=UUID(hex=document["id"]),
        client_id=UUID(hex=document["client_id"]),
        key_id=UUID(hex=document["key_id"]) if document["key_id"] else None,
        created_at=_moment(document["created_at"]),
        tokens=Tokens(*(_checked(count, int) for count in document["tokens"])),
        caller=Caller(*(_checked(text, str) for text in document["caller"])),
        failures=tuple(_failed_from_document(failed) for failed in document["failures"]),
    )


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind}")
    return value


def _moment(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment


_SPECIAL_FIELDS = {"id", "client_id", "key_id", "created_at", "tokens", "caller", "failures"}
_PLAIN_FIELDS: Mapping[str, Any] = {
    name: kind for name, kind in get_type_hints(Settlement).items() if name not in _SPECIAL_FIELDS
}


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
    key_id, detail = UUID(hex=document["key_id"]), _checked(document["detail"], str)
    upstream_status = _checked(document["status"], int | None)
    return FailedTry(
        n=_checked(document["n"], int),
        selection=Selection(key_id, None, "", _checked(document["tail"], str), b"", 0, is_trial=False),
        failure=Failure(Cause(document["cause"]), 0, "", "", detail=detail, upstream_status=upstream_status),
        duration_ms=_checked(document["duration_ms"], int),
        at=_moment(document["at"]),
    )
