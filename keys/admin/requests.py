"""The ledger, read-only: what was asked, what it came to and what it cost. No prompts, no answers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from keys.admin.base import LogAdmin
from keys.admin.display import NOTHING, dollars, milliseconds, stamp, stamp_with_distance
from keys.admin.request_form import SearchForm
from keys.admin.rows import link_to_related, page_of
from keys.admin.trail import Trail, newer, older
from keys.ledger_search import Page, find_page
from keys.models import Attempt, RequestLog
from keys.usage import known_models


@admin.register(RequestLog)
class RequestAdmin(LogAdmin):
    """UUIDv7 ids are in time order, so the newest come first by the primary key alone."""

    change_form_template = "keys/admin/request.html"
    columns = ("outcome", "client_link", "key_link", "models_named", "cost_shown", "tokens", "tries", "latency")
    fieldsets = (
        (None, {"fields": ("request_id", "when", "outcome", "error_type", "cause_shown", "client_link", "key_link")}),
        ("Model", {"fields": ("model_asked", "model_sent", "streamed")}),
        ("Tokens and cost", {"fields": ("tokens_in", "tokens_out", "tokens_cached", "cost_shown", "source")}),
        ("Time", {"fields": ("latency", "first_token", "recorded")}),
        (
            "Where from",
            {"fields": ("address", "user_agent", "session_id", "generation_id", "id", "poisoned")},
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[RequestLog]:
        """Prefetched, not joined: an inner join would hide the rows whose client is missing."""
        return super().get_queryset(request).prefetch_related("client", "key")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """A search of our own in the place of Django's list, which counts and knows pages by number only."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = SearchForm(request.GET)
        is_valid = form.is_valid()
        trail: Trail = form.cleaned_data["before"] if is_valid else ()
        page = find_page(form.search(timezone.now()), "client", "key") if is_valid else Page([])
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Requests",
            "form": form,
            "headings": [str(getattr(self, name).short_description) for name in self.columns],
            "lines": [self._line(row) for row in page.rows],
            "page": page,
            "older": older(trail, page.older),
            "newer": newer(trail),
            "steps": len(trail),
            "looked_back_to": stamp(page.looked_back_to),
            "models": known_models(),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "keys/admin/requests.html", context)

    def _line(self, row: RequestLog) -> dict[str, Any]:
        cells = [(name, getattr(self, name)(row)) for name in self.columns]
        return {"page": page_of(row), "when": self.when(row), "cells": cells}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        context["failed_attempts"] = failed_attempts_of(context["original"])
        context["title"] = "Request"
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="time")
    def when(self, row: RequestLog) -> SafeString | str:
        return stamp(row.created_at)

    @admin.display(description="client")
    def client_link(self, row: RequestLog) -> SafeString | str:
        return link_to_related(row, "client")

    @admin.display(description="key")
    def key_link(self, row: RequestLog) -> SafeString | str:
        return "none was free" if row.key_id is None else link_to_related(row, "key")

    @admin.display(description="model asked → sent")
    def models_named(self, row: RequestLog) -> SafeString | str:
        if row.model_sent in ("", row.model_asked):
            return row.model_asked
        return format_html('{} <span class="quiet">→ {}</span>', row.model_asked, row.model_sent)

    @admin.display(description="answer")
    def outcome(self, row: RequestLog) -> SafeString:
        tone = "good" if row.status < 400 and not row.error_type else "bad"
        words = row.get_cause_display() if row.cause else row.error_type
        return format_html(
            '<span class="badge {}">{}</span> <span class="reason">{}</span>', f"is-{tone}", row.status, words
        )

    @admin.display(description="cause")
    def cause_shown(self, row: RequestLog) -> str:
        return row.get_cause_display() or NOTHING

    @admin.display(description="tokens in / out")
    def tokens(self, row: RequestLog) -> str:
        taken = row.input_tokens + row.cache_read_tokens + row.cache_write_tokens
        return f"{taken:,} / {row.output_tokens:,}"

    @admin.display(description="tokens in")
    def tokens_in(self, row: RequestLog) -> str:
        return f"{row.input_tokens:,}, without the cache"

    @admin.display(description="tokens out")
    def tokens_out(self, row: RequestLog) -> str:
        return f"{row.output_tokens:,}"

    @admin.display(description="tokens cached")
    def tokens_cached(self, row: RequestLog) -> str:
        return f"{row.cache_read_tokens:,} read, {row.cache_write_tokens:,} written"

    @admin.display(description="tries")
    def tries(self, row: RequestLog) -> str:
        return f"{row.attempts:,}"

    @admin.display(description="IP address")
    def address(self, row: RequestLog) -> str:
        return row.client_ip or NOTHING

    @admin.display(description="streamed")
    def streamed(self, row: RequestLog) -> str:
        return "yes" if row.stream else "no"

    @admin.display(description="stored")
    def poisoned(self, row: RequestLog) -> str:
        return "without its texts: the database refused them" if row.flagged else "whole"

    @admin.display(description="cost")
    def cost_shown(self, row: RequestLog) -> SafeString | str:
        if row.cost_nano is None:
            return "unknown"
        return format_html('{} <span class="quiet">{}</span>', dollars(row.cost_nano), row.cost_source)

    @admin.display(description="cost comes from")
    def source(self, row: RequestLog) -> str:
        return row.get_cost_source_display()

    @admin.display(description="latency")
    def latency(self, row: RequestLog) -> str:
        return milliseconds(row.latency_ms)

    @admin.display(description="first token after")
    def first_token(self, row: RequestLog) -> str:
        return milliseconds(row.first_token_ms)

    @admin.display(description="recorded")
    def recorded(self, row: RequestLog) -> SafeString | str:
        return stamp_with_distance(row.recorded_at, timezone.now())


def failed_attempts_of(row: RequestLog) -> list[dict[str, Any]]:
    """Each upstream try that failed, for the page's table. Two queries."""
    attempts = Attempt.objects.filter(request=row).order_by("n").prefetch_related("key")
    return [
        {
            "n": attempt.n,
            "key": link_to_related(attempt, "key"),
            "status": attempt.status or "no answer",
            "cause": attempt.get_cause_display(),
            "detail": attempt.detail,
            "duration": milliseconds(attempt.duration_ms),
            "at": stamp(attempt.created_at),
        }
        for attempt in attempts
    ]
