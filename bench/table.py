"""Text tables for a terminal: the first column to the left, the others to the right."""

from __future__ import annotations

from collections.abc import Sequence


def render(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    lines = [_line(row, widths) for row in (heads, *rows)]
    return "\n".join([title, f"  {lines[0]}", f"  {'-' * len(lines[0])}", *(f"  {line}" for line in lines[1:])])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))])


def number(value: float | None, digits: int = 0) -> str:
    """With thousands set apart; what was not measured is a dash."""
    return "-" if value is None else f"{value:,.{digits}f}"


def megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f}"
