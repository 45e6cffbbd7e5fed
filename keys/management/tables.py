"""Rows as columns of text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def in_columns(heading: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """One line for each row, the heading first; the columns in `right` are set to the right."""
    lines = [list(heading), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return ["  ".join(_cells(line, widths, set(right))).rstrip() for line in lines]


def _cells(line: list[str], widths: list[int], right: set[int]) -> list[str]:
    return [
        text.rjust(width) if column in right else text.ljust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
