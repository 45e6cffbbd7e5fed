"""Secrets in memory (`Sealed`) and at rest (`Vault`): AES-256-GCM, bound to the row, under a key of the keyring.

Ciphertext: version byte, length of the key id, key id, 12 bytes of nonce, ciphertext with its tag. The associated data
names table, column, row and key id, so a ciphertext that is copied to another place can't be opened. Every purpose has
its own HKDF sub-key. Django's SECRET_KEY is not involved.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

from keys.keyring import Keyring, KeyringError, read_keyring

VERSION = 1
NONCE_BYTES = 12
TAG_BYTES = 16
KEY_TABLE = "keys_openrouterkey"
KEY_COLUMN = "secret"


class Undecryptable(Exception):
    """A stored secret can't be opened. The message names the place and the reason, never a byte of it."""


class Sealed:
    """A secret in memory. Nothing but `reveal` gives it away: text forms are masked, copies and pickles refused."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        return self.__text

    def __repr__(self) -> str:
        return "<sealed>"

    def __format__(self, spec: str) -> str:
        return "<sealed>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sealed):
            return NotImplemented
        return hmac.compare_digest(_compared(self.__text), _compared(other.__text))

    __hash__ = None  # type: ignore[assignment]  # a hash would let dictionaries compare in variable time

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A sealed secret can't be pickled or copied.")

    def __getstate__(self) -> NoReturn:
        raise TypeError("A sealed secret can't be pickled or copied.")

    def __copy__(self) -> NoReturn:
        raise TypeError("A sealed secret can't be copied.")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("A sealed secret can't be copied.")


class KeyedDigest:
    """HMAC-SHA-256 (RFC 2104) with one key: as `hmac.digest`, in half the time, as both hashes are begun once."""

    def __init__(self, key: bytes) -> None:
        """key: no longer than a block of SHA-256, which is 64 bytes; else ValueError."""
        if len(key) > hashlib.sha256().block_size:
            raise ValueError("a key of more than 64 bytes has to be hashed first")
        block = key.ljust(hashlib.sha256().block_size, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def of(self, text: str) -> str:
        """64 hexadecimal digits."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


class Vault:
    """Seals and opens secrets with the keys of one keyring, and makes the digests that secrets are found by."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self._ciphers = {key_id: AESGCM(keyring.master_subkey(key_id, "seal")) for key_id in keyring.ids}
        self._fingerprints = KeyedDigest(keyring.index_subkey("fingerprint"))
        self._client_digests = KeyedDigest(keyring.index_subkey("client digest"))

    def seal(self, secret: Sealed, *, table: str, column: str, row: UUID) -> bytes:
        """Seal with the newest master key."""
        key_id = self.keyring.active_id
        nonce = os.urandom(NONCE_BYTES)
        place = _place(table, column, row, key_id)
        return _header(key_id) + nonce + self._ciphers[key_id].encrypt(nonce, secret.reveal().encode(), place)

    def unseal(self, ciphertext: bytes | memoryview, *, table: str, column: str, row: UUID) -> Sealed:
        """Open what `seal` made for the same place; Undecryptable for everything else."""
        try:
            return self._unseal(bytes(ciphertext), table, column, row)
        except Undecryptable as exc:
            raise Undecryptable(f"{table}.{column} of {row} {exc}") from None

    def _unseal(self, ciphertext: bytes, table: str, column: str, row: UUID) -> Sealed:
        key_id, body = _split(ciphertext)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Undecryptable(f"is sealed with master key {key_id}, which the keyring lacks.")
        try:
            text = cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], _place(table, column, row, key_id))
            return Sealed(text.decode())
        except (InvalidTag, UnicodeDecodeError):
            raise Undecryptable("was changed, or was sealed for another place or by another keyring.") from None

    def key_id_of(self, ciphertext: bytes | memoryview) -> str:
        try:
            return _split(bytes(ciphertext))[0]
        except Undecryptable as exc:
            raise Undecryptable(f"A secret {exc}") from None

    def fingerprint(self, key_text: str) -> str:
        """64 hexadecimal digits that find an OpenRouter key again."""
        return self._fingerprints.of(key_text)

    def client_digest(self, client_key: str) -> str:
        """64 hexadecimal digits that find a client by its key."""
        return self._client_digests.of(client_key)

    def check_value(self, key_id: str) -> str:
        """What the database keeps to know this master key and the index key by; KeyError for an unknown id."""
        key = self.keyring.master_subkey(key_id, "check")
        return hmac.digest(key, self.keyring.index_subkey("check"), hashlib.sha256).hex()


def get_vault() -> Vault:
    """The vault of `settings.OPENSVM_KEYRING`, made again when the file is replaced. Ask each time; don't keep it.

    One `stat` a call. A file that vanishes or breaks while the service runs leaves the last good vault in use.
    """
    path = str(settings.OPENSVM_KEYRING)
    known = _vaults.get(path)
    try:
        stamp = _stamp(path)
        if known is None or known[0] != stamp:
            known = _vaults[path] = (stamp, Vault(read_keyring(Path(path))))
    except (OSError, KeyringError):
        if known is None:
            return Vault(read_keyring(Path(path)))  # says what is wrong
    return known[1]


_vaults: dict[str, tuple[tuple[int, int, int], Vault]] = {}


def _stamp(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=64)
def _header(key_id: str) -> bytes:
    return bytes([VERSION, len(key_id)]) + key_id.encode("ascii")


def _place(table: str, column: str, row: UUID, key_id: str) -> bytes:
    return _place_template(table, column, key_id) % str(row).encode()


@functools.lru_cache(maxsize=64)
def _place_template(table: str, column: str, key_id: str) -> bytes:
    names = (json.dumps(name).replace("%", "%%") for name in (table, column, key_id))
    return '["opensvm", {}, {}, {}, "%s", {}]'.format(VERSION, *names).encode()


def _split(ciphertext: bytes) -> tuple[str, bytes]:
    """Key id and body. The message of its Undecryptable lacks the subject."""
    if not ciphertext:
        raise Undecryptable("is empty: it was erased or never stored.")
    if ciphertext[0] != VERSION:
        raise Undecryptable(f"has the unknown format {ciphertext[0]}.")
    end = 2 + (ciphertext[1] if len(ciphertext) > 1 else 0)
    key_id, body = ciphertext[2:end], ciphertext[end:]
    if not key_id.isascii() or len(body) < NONCE_BYTES + TAG_BYTES:
        raise Undecryptable("is damaged or cut short.")
    return key_id.decode("ascii"), body


def _compared(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
