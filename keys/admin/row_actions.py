"""What an operator does to rows: one table of actions for the list and for the object's page.

Each action first skips the rows on which it is not legal, calls one service for each of the others, and says what came
of it: "3 disabled, 1 skipped (already retired)".
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from keys.admin.base import REFUSALS, ServiceAdmin, actor_of, reason_of
from keys.errors import IllegalStateChange
from keys.services.audit import Actor

TIME_FOR_ALL_SECONDS = 20.0  # a page must answer: rows that are not begun by then are left for the next press


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one row. `text` is shown when it says more than the count does."""

    text: str = ""
    is_trouble: bool = False


@dataclass(frozen=True, slots=True)
class RowAction:
    """`skip(row)` gives the reason why the action is not legal on `row`, or "". `done` is the word of the report."""

    name: str
    label: str
    done: str
    skip: Callable[[Any], str]
    run: Callable[[Any, Actor], Outcome]
    warning: str = ""  # set: the action asks first, with this text
    is_danger: bool = False


@dataclass(slots=True)
class Report:
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    changed: list[Any] = field(default_factory=list)

    @property
    def level(self) -> int:
        if self.failed or any(outcome.is_trouble for outcome in self.outcomes):
            return messages.WARNING
        return messages.SUCCESS if self.done else messages.WARNING

    def sentence(self, word: str) -> str:
        parts = [f"{self.done:,} {word}"]
        if self.skipped:
            reasons = ", ".join(
                reason if len(self.skipped) == 1 else f"{count:,} {reason}" for reason, count in self.skipped.items()
            )
            parts.append(f"{self.skipped.total():,} skipped ({reasons})")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed ({'; '.join(dict.fromkeys(self.failed))})")
        texts = "; ".join(outcome.text for outcome in self.outcomes if outcome.text)
        return f"{', '.join(parts)}. {texts}".strip()


def apply(
    action: RowAction, rows: Iterable[Any], actor: Actor, *, time_for_all: float = TIME_FOR_ALL_SECONDS
) -> Report:
    """Run `action` on each row for which it is legal. Raises nothing that a service or the database may raise."""
    report = Report()
    deadline = time.monotonic() + time_for_all
    for row in rows:
        reason = action.skip(row)
        if not reason and time.monotonic() > deadline:
            reason = f"not begun within {time_for_all:.0f} s, press again"
        if reason:
            report.skipped[reason] += 1
        else:
            _run_one(action, row, actor, report)
    return report


def _run_one(action: RowAction, row: Any, actor: Actor, report: Report) -> None:
    try:
        outcome = action.run(row, actor)
    except IllegalStateChange as exc:  # someone else was faster
        report.skipped[f"already {exc.old}"] += 1
    except REFUSALS as exc:
        report.failed.append(reason_of(exc))
    else:
        report.done += 1
        report.outcomes.append(outcome)
        report.changed.append(row)


class RowActionsAdmin(ServiceAdmin):
    """Offers `row_actions` on the list and on the page. On the page they are buttons; what asks first has a page."""

    row_actions: tuple[RowAction, ...] = ()

    def prepare(self, rows: list[Any]) -> list[Any]:
        """The rows with what `skip` of the actions needs to know of them; for overriding."""
        return rows

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.do_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_do"
        return [path("<path:object_id>/do/<slug:action>/", view, name=name), *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> Any:
        """Ours for who may change rows; nobody deletes."""
        if not self.has_change_permission(request):
            return {}
        return {action.name: (_on_list(action), action.name, action.label) for action in self.row_actions}

    def do_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        chosen = next((one for one in self.row_actions if one.name == action), None)
        if chosen is None:
            raise Http404(f"There is no action {action}.")
        row = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        if row is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id}.")
        self.prepare([row])
        if request.method == "POST":
            self.perform(request, chosen, [row])
            return HttpResponseRedirect(self.page_after(request, chosen, row))
        if not chosen.warning:
            return HttpResponseNotAllowed(["POST"])
        return self.ask(request, chosen, [row], cancel=self._page_of(row), hidden=[])

    def page_after(self, request: HttpRequest, action: RowAction, row: Any) -> str:
        """Where an action of the page leads; for overriding."""
        return self._page_of(row)

    def perform(self, request: HttpRequest, action: RowAction, rows: Iterable[Any]) -> None:
        report = apply(action, rows, actor_of(request))
        for row in report.changed:
            self.log_change(request, row, action.done.capitalize())
        self.message_user(request, report.sentence(action.done), report.level)

    def ask(
        self, request: HttpRequest, action: RowAction, rows: list[Any], *, cancel: str, hidden: list[tuple[str, str]]
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{action.label}?",
            "action": action,
            "legal": [row for row in rows if not action.skip(row)],
            "skipped": [(row, action.skip(row)) for row in rows if action.skip(row)],
            "hidden": hidden,
            "cancel": cancel,
        }
        return TemplateResponse(request, "keys/admin/confirm.html", context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row = context.get("original")
        if row is not None and self.has_change_permission(request, row):
            self.prepare([row])
            context["row_actions"] = [(action, self._do_url(row, action)) for action in self._legal_actions(row)]
        return super().render_change_form(request, context, *args, **kwargs)

    def _legal_actions(self, row: models.Model) -> list[RowAction]:
        return [action for action in self.row_actions if not action.skip(row)]

    def _do_url(self, row: models.Model, action: RowAction) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_do", args=[row.pk, action.name])

    def _page_of(self, row: models.Model) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])


def _on_list(action: RowAction) -> Callable[[RowActionsAdmin, HttpRequest, QuerySet[Any]], HttpResponse | None]:
    def act(admin: RowActionsAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        rows = admin.prepare(list(queryset))
        if action.warning and "confirmed" not in request.POST:
            hidden = [("action", action.name), *((ACTION_CHECKBOX_NAME, str(row.pk)) for row in rows)]
            return admin.ask(request, action, rows, cancel=request.get_full_path(), hidden=hidden)
        admin.perform(request, action, rows)
        return None

    return act
