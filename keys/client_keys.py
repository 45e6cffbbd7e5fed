"""The format of client keys: `sk-ant-api03-`, 43 random base62 characters (256 bits), 6 base62 characters of CRC-32.

The checksum lets a mistyped or made-up key be refused before the database is asked. Pure functions.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib

START = "sk-ant-api03-"
RANDOM_CHARACTERS = 43
CHECKSUM_CHARACTERS = 6
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHAPE = re.compile(rf"{START}[0-9A-Za-z]{{{RANDOM_CHARACTERS + CHECKSUM_CHARACTERS}}}")


def new_client_key() -> str:
    body = START + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether shape and checksum are right; says nothing about whether the key exists."""
    if not _SHAPE.fullmatch(text):
        return False
    return text[-CHECKSUM_CHARACTERS:] == _checksum(text[:-CHECKSUM_CHARACTERS])


def prefix_of(text: str) -> str:
    """What may be shown of a client key: `sk-ant-api03-` and 4 of the 43 random characters."""
    return text[: len(START) + 4]


def _checksum(body: str) -> str:
    rest, low = divmod(zlib.crc32(body.encode("ascii")), len(_PAIRS))
    high, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]
