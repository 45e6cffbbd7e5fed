"""Pages of tables that grow without end: nobody counts them whole, and nobody pages beyond the first 10,000 rows."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

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


class PlainList(ChangeList):
    """Offers to show all only where a search or a filter leaves something out."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count


class NewestFirst(PlainList):
    """Ignores the order that a query string asks for: only the primary key has an index that a page can follow."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]
