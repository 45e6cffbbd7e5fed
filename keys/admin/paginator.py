"""Pages of tables that grow without end: nobody counts them whole, and nobody pages beyond the first 10,000 rows."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator

MOST_ROWS = 10_000

if TYPE_CHECKING:
    AnyPaginator = Paginator[Any]
else:
    AnyPaginator = Paginator


class CappedPaginator(AnyPaginator):
    """Counts no further than `MOST_ROWS`; what lies beyond is found by filter or search."""

    @cached_property
    def count(self) -> int:
        return int(self.object_list.values("pk")[:MOST_ROWS].count())  # type: ignore[attr-defined]  # of a QuerySet
