"""The text of an OpenRouter key: what is one, which entries a text holds, what may be shown. Pure functions."""

from __future__ import annotations

import re

from keys.errors import InvalidKeyText

START = "sk-or-v1-"
_SHAPE = re.compile(rf"{START}[A-Za-z0-9_-]{{1,200}}")
_SEPARATORS = re.compile(r"[\s,]+")


def parse_key_text(text: str) -> str:
    """The key without the white space around it; InvalidKeyText, which never repeats the text, if it is not one."""
    trimmed = text.strip()
    if not _SHAPE.fullmatch(trimmed):
        raise InvalidKeyText
    return trimmed


def split_key_texts(text: str) -> list[str]:
    """The entries of a text that separates them by commas or white space. Empty ones are dropped."""
    return [entry for entry in _SEPARATORS.split(text) if entry]


def tail_of(text: str) -> str:
    """`...abc1`: the last four characters of a key, and fewer of a short one, at most half of its random part."""
    shown = min(4, (len(text) - len(START)) // 2)
    return "..." + (text[-shown:] if shown > 0 else "")
