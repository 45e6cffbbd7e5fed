"""The embedded Celery broker: a folder under `var/`, for a machine without Redis or RabbitMQ.

kombu's own filesystem transport writes messages in place, where a reader sees half of one, and moves them through the
system's temp folder. Here a message is written under `writing/`, appears by a rename in `ready/<queue>/`, and is taken
by a rename to `claimed/`, which exactly one reader wins. Nothing else is stored: every process declares its own
queues, and there is no fanout, so remote control and event monitors need a real broker.

A message that is taken is never given out again (at most once): the tasks are periodic and idempotent, and the next
run does what a lost one would have done. What is expired, or left behind by a killed process, is pruned.
"""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any
from urllib.parse import quote

from kombu.transport import virtual
from kombu.utils.json import dumps, loads

DAY_SECONDS = 24 * 3600.0
LEFT_BEHIND_SECONDS = 300.0
PRUNE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class MessageName:
    """The file name of a message: in order of sending, and telling its end without being opened."""

    sent_ns: int
    expires_ns: int
    unique: str

    def __str__(self) -> str:
        return f"{self.sent_ns:020d}-{self.expires_ns:020d}-{self.unique}.json"

    @classmethod
    def parse(cls, text: str) -> MessageName | None:
        parts = text.removesuffix(".json").split("-", 2)
        if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit():
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    @classmethod
    def new(cls, message: dict[str, Any], now_ns: int) -> MessageName:
        return cls(now_ns, _expires_ns(message) or now_ns + int(DAY_SECONDS * 1e9), uuid.uuid4().hex)


def _expires_ns(message: dict[str, Any]) -> int | None:
    """Celery's own expiry of a task message; None when it has none that can be read."""
    text: Any = (message.get("headers") or {}).get("expires")
    try:
        expires = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return int((expires if expires.tzinfo else expires.replace(tzinfo=dt.UTC)).timestamp() * 1e9)


class MessageFolder:
    """Messages as files. All of its state is in the file system; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writing = root / "writing"
        self._claimed = root / "claimed"
        self._listed: dict[str, deque[Path]] = {}
        self._prune_after = 0.0

    def put(self, queue: str, message: dict[str, Any]) -> None:
        self._prune_sometimes()
        name = str(MessageName.new(message, time.time_ns()))
        draft = self._writing / name
        ready = self._ready(queue)
        for folder in (self._writing, self._claimed, ready):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            draft.write_bytes(dumps(message).encode())
            draft.rename(ready / name)
        except BaseException:  # also a signal's, which ends a scheduler anywhere
            draft.unlink(missing_ok=True)
            raise

    def take(self, queue: str) -> dict[str, Any] | None:
        """The oldest message that is not expired, or None. The folder is listed only when the last list is used up."""
        self._prune_sometimes()
        waiting = self._listed.setdefault(queue, deque())
        if not waiting:
            waiting.extend(self._messages(queue))
        while waiting:
            path = waiting.popleft()
            if self._is_expired(path):
                path.unlink(missing_ok=True)
            elif (message := self._claim(path)) is not None:
                return message
        return None

    def size(self, queue: str) -> int:
        return len(self._messages(queue))

    def purge(self, queue: str) -> int:
        return sum(_unlinked(path) for path in self._messages(queue))

    def prune(self) -> None:
        """Delete what is expired in any queue, and what a killed process left half done."""
        for path in self._root.glob("ready/*/*.json"):
            if self._is_expired(path):
                path.unlink(missing_ok=True)
        for folder in (self._writing, self._claimed):
            for path in _files(folder):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - LEFT_BEHIND_SECONDS:
                        path.unlink()

    def _claim(self, path: Path) -> dict[str, Any] | None:
        claimed = self._claimed / path.name
        try:
            path.rename(claimed)
        except FileNotFoundError:
            return None  # another reader was faster
        try:
            found = loads(claimed.read_bytes().decode())
        except (OSError, ValueError):
            found = None  # a power cut emptied the file
        finally:
            claimed.unlink(missing_ok=True)
        return found if isinstance(found, dict) else None

    def _messages(self, queue: str) -> list[Path]:
        return sorted(_files(self._ready(queue)))

    def _ready(self, queue: str) -> Path:
        return self._root / "ready" / quote(queue, safe="").replace(".", "%2E")

    def _is_expired(self, path: Path) -> bool:
        name = MessageName.parse(path.name)
        return name is None or name.expires_ns <= time.time_ns()

    def _prune_sometimes(self) -> None:
        if time.monotonic() >= self._prune_after:
            self._prune_after = time.monotonic() + PRUNE_SECONDS
            self.prune()


def _files(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (Path(entry.path) for entry in os.scandir(folder))


def _unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


class Channel(virtual.Channel):
    """kombu's virtual channel on a `MessageFolder`."""

    supports_fanout = False

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._folder = MessageFolder(Path(connection.client.transport_options["folder"]))

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self._folder.put(queue, message)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        message = self._folder.take(queue)
        if message is None:
            raise Empty
        return message

    def _size(self, queue: str) -> int:
        return self._folder.size(queue)

    def _purge(self, queue: str) -> int:
        return self._folder.purge(queue)


class Transport(virtual.Transport):
    """The transport's name in Celery's settings is `opensvm.broker:Transport`."""

    Channel = Channel
    implements = virtual.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset({"direct", "topic"}), heartbeats=False
    )
    default_port = 0
    driver_type = "folder"
    driver_name = "folder"
    connection_errors = (OSError,)
    channel_errors = (OSError,)

    def driver_version(self) -> str:
        return "1"
