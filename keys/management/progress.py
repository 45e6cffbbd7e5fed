"""A progress bar for long work, on a terminal only: a log or a pipe gets nothing of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

WIDTH = 30
Item = TypeVar("Item")


class Terminal(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


class Progress:
    """`show` may be called as often as wanted; `end` clears the line for what is printed next."""

    def __init__(self, terminal: Terminal, words: str, total: int) -> None:
        self._terminal = terminal
        self._words = words
        self._total = max(total, 1)
        self._is_shown = terminal.isatty()
        self._length = 0

    def show(self, done: int, note: str = "") -> None:
        full = min(done, self._total) * WIDTH // self._total
        bar = "#" * full + "." * (WIDTH - full)
        self._draw(f"{self._words} [{bar}] {done:,}/{self._total:,} {note}".rstrip())

    def over(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, one after another, with the bar moving."""
        for number, item in enumerate(items):
            self.show(number)
            yield item
        self.end()

    def end(self) -> None:
        self._draw("")

    def _draw(self, line: str) -> None:
        if not self._is_shown:
            return
        self._terminal.write(f"\r{line.ljust(self._length)}" + ("" if line else "\r"))
        self._terminal.flush()
        self._length = len(line)
