"""Texts of strangers, made fit for a column: no NUL, no lone surrogate, no key, no longer than the column."""

from __future__ import annotations

import re

_KEY = re.compile(r"sk-(or|ant)-[A-Za-z0-9_-]+")  # sent in the wrong place, as a model's name or a session


def clean_text(text: str, limit: int) -> str:
    """`text` as every database stores it. Nothing is refused: a row must never be lost for what it says."""
    cut = (_KEY.sub(r"sk-\1-…", text) if "sk-" in text else text)[:limit]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
