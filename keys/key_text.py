"""The text of an OpenRouter key: what is one, which entries a text holds, what may be shown. Pure functions."""

from __future__ import annotations

import re

from keys.errors import InvalidKeyText

START = "sk-or-v1-"
_SHAPE = re.compile(rf"{START}[A-Za-z0-9_-]{{1,200}}")
_WHOLE_KEY = re.compile(rf"{START}[A-Za-z0-9_-]{{8,}}")
_SEPARATORS = re.compile(r"\s*,\s*|\s+")
_COMMENTS = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


def parse_key_text(text: str) -> str:
    """The key without the white space around it; InvalidKeyText, which never repeats the text, if it is not one."""
    trimmed = text.strip()
    if not _SHAPE.fullmatch(trimmed):
        raise InvalidKeyText
    return trimmed


def split_entries(text: str) -> list[tuple[int, str]]:
    """(position, entry) of a text that separates entries by commas or white space; lines with # first are comments.

    Positions count from 1. Empty entries between commas are dropped, but counted, as a reader would.
    """
    entries = enumerate(_SEPARATORS.split(_COMMENTS.sub("", text).strip()), start=1)
    return [(position, entry) for position, entry in entries if entry]


def tail_of(text: str) -> str:
    """`...abc1`: the last four characters of a key, and fewer of a short one, at most half of its random part."""
    shown = min(4, (len(text) - len(START)) // 2)
    return "..." + (text[-shown:] if shown > 0 else "")


def redact_keys(text: str, secret: str = "") -> str:
    """`text` with `secret`, and whatever else looks like a whole key, cut down to its tail."""
    shown = text.replace(secret, tail_of(secret)) if secret else text
    return _WHOLE_KEY.sub(lambda found: tail_of(found.group()), shown)
