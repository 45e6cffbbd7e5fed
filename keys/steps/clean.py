"""Texts of strangers, made fit for a column: no NUL, no lone surrogate, no key, no longer than the column."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

_KEY = re.compile(r"sk-(or|ant)-[A-Za-z0-9_-]+")  # sent in the wrong place, as a model's name or a session


def clean_texts(texts: Sequence[str], cuts: Sequence[slice]) -> tuple[str, ...]:
    """`clean_text` of each. Nearly all are plain, which one look at all of them shows."""
    whole = "".join(texts)
    if whole.isascii() and "\0" not in whole and "sk-" not in whole:
        return tuple(map(operator.getitem, texts, cuts))
    return tuple([clean_text(text, cut.stop) for text, cut in zip(texts, cuts, strict=True)])


def clean_text(text: str, limit: int) -> str:
    """`text` as every database stores it. Nothing is refused: a row must never be lost for what it says."""
    cut = (_KEY.sub(r"sk-\1-…", text) if "sk-" in text else text)[:limit]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
