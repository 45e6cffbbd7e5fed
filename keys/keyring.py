"""The keyring file: the master keys that seal secrets, and the index key for digests. Pure Python, no Django.

    {"version": 1, "index_key": "<base64>", "master_keys": [{"id", "key", "created_at"}, …]}

The newest master key is last and is the active one; the older ones stay, because rows may still be sealed with them.
The index key never changes, so fingerprints and client digests survive every rotation of master keys. Whoever
writes the file goes through `create_keyring` or `add_master_key_to_file`; nothing ever shortens it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
KEY_BYTES = 32
MAX_FILE_BYTES = 1024 * 1024
_KEY_ID = re.compile(r"[A-Za-z0-9-]{1,32}")


class KeyringError(Exception):
    """The keyring file can't be used. The message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class MasterKeyEntry:
    """One master key as the file holds it."""

    id: str
    created_at: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keyring:
    """What the file holds. `repr` shows ids only."""

    entries: tuple[MasterKeyEntry, ...]
    index_key: bytes = field(repr=False)

    @property
    def active_id(self) -> str:
        return self.entries[-1].id

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    def master_subkey(self, key_id: str, purpose: str) -> bytes:
        """32 bytes for one purpose of one master key; KeyError for an id that is not here."""
        for entry in self.entries:
            if entry.id == key_id:
                return _derive(entry.key, f"opensvm master {purpose}", KEY_BYTES)
        raise KeyError(key_id)

    def index_subkey(self, purpose: str) -> bytes:
        """32 bytes for one purpose of the index key."""
        return _derive(self.index_key, f"opensvm index {purpose}", KEY_BYTES)

    def derive_text(self, purpose: str) -> str:
        """64 URL-safe characters made of the index key, for Django's SECRET_KEY."""
        return base64.urlsafe_b64encode(_derive(self.index_key, f"opensvm text {purpose}", 48)).decode("ascii")


def read_keyring(path: str | os.PathLike[str]) -> Keyring:
    """Read the file; KeyringError says what is wrong with it and what to do."""
    content = _read_private(Path(path))
    try:
        document = json.loads(content)
    except ValueError as exc:
        raise KeyringError(f"The keyring {path} is not JSON: restore it from your backup.") from exc
    try:
        return _parse(document)
    except ValueError as exc:
        raise KeyringError(f"The keyring {path} {exc}: restore it from your backup.") from exc


def create_keyring(path: str | os.PathLike[str]) -> Keyring:
    """Make a new keyring with one master key, mode 0600; KeyringError if the file is there already."""
    target = Path(os.path.realpath(path))
    keyring = Keyring(entries=(_new_entry(),), index_key=secrets.token_bytes(KEY_BYTES))
    with _explained(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _written_beside(target, keyring) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError as exc:
                raise KeyringError(f"The keyring {path} exists already; it is never overwritten.") from exc
        _sync_folder(target.parent)
    return keyring


def add_master_key_to_file(path: str | os.PathLike[str]) -> Keyring:
    """Append a new master key, which becomes the active one; the file is replaced as a whole, under a lock."""
    target = Path(os.path.realpath(path))
    with _explained(path), _locked(target):
        old = read_keyring(target)
        keyring = Keyring(entries=(*old.entries, _new_entry()), index_key=old.index_key)
        with _written_beside(target, keyring) as temporary:
            os.replace(temporary, target)
        _sync_folder(target.parent)
    return keyring


def _new_entry() -> MasterKeyEntry:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return MasterKeyEntry(id=f"mk-{secrets.token_hex(6)}", created_at=now, key=secrets.token_bytes(KEY_BYTES))


def _derive(key: bytes, info: str, length: int) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info.encode()).derive(key)


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyringError(f"The keyring {path} is open to other users (mode {mode:03o}): run chmod 600 {path}")
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError as exc:
        raise KeyringError(
            f"The keyring {path} is missing: start the service once with bin/serve, or restore it from your backup."
        ) from exc
    except OSError as exc:
        raise KeyringError(f"The keyring {path} can't be read ({exc.strerror}): check OPENSVM_KEYRING.") from exc


def _parse(document: Any) -> Keyring:
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    if document.get("version") != VERSION:
        raise ValueError(f"has version {document.get('version')!r}, this service reads version {VERSION}")
    rows = document.get("master_keys")
    if not isinstance(rows, list) or not rows:
        raise ValueError("holds no master key")
    entries = tuple(_parse_entry(row, number) for number, row in enumerate(rows, start=1))
    if len({entry.id for entry in entries}) < len(entries):
        raise ValueError("holds the same master key id twice")
    return Keyring(entries=entries, index_key=_parse_key(document.get("index_key"), "index key"))


def _parse_entry(row: Any, number: int) -> MasterKeyEntry:
    if not isinstance(row, dict):
        raise ValueError(f"holds no id in master key {number}")
    key_id = row.get("id")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise ValueError(f"holds no valid id in master key {number}")
    key = _parse_key(row.get("key"), f"master key {key_id}")
    return MasterKeyEntry(id=key_id, created_at=str(row.get("created_at", "")), key=key)


def _parse_key(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"lacks the {what}")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"holds a damaged {what}") from None  # the cause could repeat the text
    if len(key) != KEY_BYTES:
        raise ValueError(f"holds a {what} of {len(key)} instead of {KEY_BYTES} bytes")
    return key


def _serialize(keyring: Keyring) -> bytes:
    rows = [{"id": entry.id, "key": _encode(entry.key), "created_at": entry.created_at} for entry in keyring.entries]
    document = {"version": VERSION, "index_key": _encode(keyring.index_key), "master_keys": rows}
    return (json.dumps(document, indent=2) + "\n").encode()


def _encode(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")


@contextlib.contextmanager
def _written_beside(target: Path, keyring: Keyring) -> Iterator[Path]:
    """A temporary file with the keyring, safe on the disk, in the folder of `target`; gone afterwards."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(_serialize(keyring))
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    fd = os.open(target.with_name(f"{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise KeyringError(f"The keyring {path} can't be written ({exc.strerror}): check OPENSVM_KEYRING.") from exc


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
