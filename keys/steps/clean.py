"""Texts of strangers, made fit for a column: no NUL, no lone surrogate, no longer than the column."""

from __future__ import annotations


def clean_text(text: str, limit: int) -> str:
    """`text` as every database stores it. Nothing is refused: a row must never be lost for what it says."""
    cut = text[:limit]
    if cut.isascii() and "\0" not in cut:
        return cut
    return cut.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
