"""OpenRouter keys: what each is doing and why, what it costs, and what an operator may do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from keys.admin.base import REFUSALS, actor_of, reason_of
from keys.admin.display import NOTHING, cost, dollars, relative, shortened, stamp, stamp_with_distance
from keys.admin.filters import StateFilter
from keys.admin.key_actions import KEY_ACTIONS, check_outcome
from keys.admin.key_forms import AddKeyForm, ChangeKeyForm
from keys.admin.key_import import ImportPages
from keys.admin.key_page import page_sections
from keys.admin.paginator import PlainList
from keys.admin.pool import blocking_of, one_account_warning, view_keys
from keys.admin.rotation import DueRotationFilter, RotationPages, rotation_page
from keys.admin.row_actions import RowAction, RowActionsAdmin
from keys.admin.rows import link_to
from keys.models import KeyState, OpenRouterKey
from keys.services.keys import add_key, edit_key
from keys.services.rotation import count_in_flight, refusal_to_rotate

if TYPE_CHECKING:
    from keys.admin.paginator import PlainList
from keys.admin.pool import KeyView


class KeyChangeList(PlainList):
    """Reads the standing and the costs of the page's keys at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: Any = attach_views(list(self.result_list))


def attach_views(keys: list[OpenRouterKey]) -> list[OpenRouterKey]:
    views = view_keys(keys)
    for key in keys:
        key.view = views[key.pk]  # type: ignore[attr-defined]  # for the columns below
        key.blocking = views[key.pk].blocking  # type: ignore[attr-defined]  # for the actions
    return keys


def _view(key: OpenRouterKey) -> KeyView:
    view: KeyView = key.view  # type: ignore[attr-defined]  # see attach_views
    return view


def rotate_chosen(admin: KeyAdmin, request: HttpRequest, queryset: QuerySet[OpenRouterKey]) -> HttpResponse | None:
    """The list's action: leads to the page of the one key."""
    chosen = list(queryset[:2])
    if len(chosen) == 1:
        return HttpResponseRedirect(rotation_page(chosen[0].pk))
    admin.message_user(request, "Choose one key: each needs a successor of its own.", messages.WARNING)
    return None


@admin.register(OpenRouterKey)
class KeyAdmin(RowActionsAdmin, RotationPages, ImportPages):
    row_actions = KEY_ACTIONS
    change_form_template = "keys/admin/key_change.html"
    change_list_template = "keys/admin/openrouterkey_list.html"
    list_display = (
        "named",
        "badge",
        "account_link",
        "tier",
        "used",
        "costs",
        "rotation",
        "checked",
    )
    list_filter = (StateFilter, "account", DueRotationFilter)
    search_fields = ("name", "tail", "note", "label")
    ordering = ("created_at", "pk")
    sortable_by = ("named", "tier")
    facts = (
        ("In the pool", ("tail", "selected", "last_used", "cost_today", "cost_days", "added", "rotation")),
        (
            "What OpenRouter says (GET /key)",
            ("last_check", "bills_to", "label", "limit", "remaining", "resets", "spent", "expires"),
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[OpenRouterKey]:
        return (
            super()
            .get_queryset(request)
            .select_related("account", "replaced_by")
            .defer("secret", "replaced_by__secret")
        )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeyChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        context = {"one_account_warning": one_account_warning}  # called by the template, so not for an action
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **{**kwargs, "form": ChangeKeyForm if obj else AddKeyForm})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ((None, {"fields": ("name", "key_text", "account", "tier", "note")}),)
        facts = ((title, {"fields": fields}) for title, fields in self.facts)
        return ((None, {"fields": ("badge", "name", "account", "tier", "note")}), *facts)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("badge", *(field for _, fields in self.facts for field in fields)) if obj else ()

    def prepare(self, rows: list[Any]) -> list[Any]:
        unread = [row for row in rows if not hasattr(row, "blocking")]
        blocking = blocking_of(unread, timezone.now()) if unread else {}
        for row in unread:
            row.blocking = blocking[row.pk]
        draining = [row.pk for row in rows if row.state == KeyState.DRAINING]
        in_flight = count_in_flight(draining) if draining else {}
        for row in rows:
            row.in_flight_now = in_flight.get(row.pk, 0)
        return rows

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        if self.has_change_permission(request):
            actions["rotate"] = (rotate_chosen, "rotate", "Rotate…")
        return actions

    def page_after(self, request: HttpRequest, action: RowAction, row: Any) -> str:
        is_rotation = action.name == "drain" or request.GET.get("back") == "rotation"
        return rotation_page(row.pk) if is_rotation else super().page_after(request, action, row)

    @method_decorator(sensitive_post_parameters("key_text"))
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        return super().add_view(request, form_url, extra_context)

    @sensitive_variables()
    def save_by_service(self, request: HttpRequest, form: Any, change: bool) -> OpenRouterKey:
        typed, actor = form.cleaned_data, actor_of(request)
        values = {field: typed[field] for field in ("name", "account", "tier", "note")}
        if change:
            return edit_key(form.instance.pk, actor=actor, **values)
        return add_key(actor=actor, secret=typed["key_text"], **values)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> Any:
        """The key is stored; what OpenRouter says about it is told, and changes nothing about that."""
        try:
            outcome = check_outcome(obj, actor_of(request))
        except REFUSALS as exc:
            self.message_user(request, f"The key is stored, but not checked: {reason_of(exc)}", messages.WARNING)
        else:
            level = messages.WARNING if outcome.is_trouble else messages.SUCCESS
            self.message_user(request, f"First check of {outcome.text}", level)
        return super().response_add(request, obj, post_url_continue)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        key = context.get("original")
        if key is not None:
            attach_views([key])
            context.update(page_sections(key, _view(key), request.user))
            if self.has_change_permission(request, key) and (context["rotation"] or not refusal_to_rotate(key)):
                context["rotate_link"] = rotation_page(key.pk)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="key", ordering="name")
    def named(self, key: OpenRouterKey) -> SafeString:
        return format_html("{} {}", key.name, key.tail)

    @admin.display(description="state")
    def badge(self, key: OpenRouterKey) -> SafeString:
        standing = _view(key).standing
        return format_html(
            '<span class="badge is-{}">{}</span> <span class="reason">{}</span>',
            standing.tone,
            standing.word,
            standing.reason,
        )

    @admin.display(description="account")
    def account_link(self, key: OpenRouterKey) -> SafeString | str:
        return link_to(key.account)

    @admin.display(description="requests")
    def selected(self, key: OpenRouterKey) -> str:
        return f"{key.selections:,}"

    @admin.display(description="last used")
    def last_used(self, key: OpenRouterKey) -> SafeString | str:
        return stamp(key.last_selected_at, missing="never")

    @admin.display(description="requests, last used")
    def used(self, key: OpenRouterKey) -> SafeString:
        return format_html("{}<br>{}", self.selected(key), self.last_used(key))

    @admin.display(description="cost today, 30 days (UTC)")
    def costs(self, key: OpenRouterKey) -> SafeString:
        return format_html("{}<br>{}", self.cost_today(key), self.cost_days(key))

    @admin.display(description="cost today (UTC)")
    def cost_today(self, key: OpenRouterKey) -> str:
        used = _view(key).today
        return cost(used.cost_nano, used.unknown_costs)

    @admin.display(description="cost 30 days (UTC)")
    def cost_days(self, key: OpenRouterKey) -> str:
        used = _view(key).thirty_days
        return cost(used.cost_nano, used.unknown_costs)

    @admin.display(description="next rotation")
    def rotation(self, key: OpenRouterKey) -> SafeString | str:
        due = None if key.state == KeyState.RETIRED else key.rotates_at
        return stamp_with_distance(due, timezone.now())

    @admin.display(description="last check")
    def last_check(self, key: OpenRouterKey) -> SafeString | str:
        if key.checked_at is None:
            return "not checked yet"
        when = stamp_with_distance(key.checked_at, timezone.now())
        if key.check_error:
            return format_html('<span class="badge is-bad">failed</span> {}<br>{}', when, key.check_error)
        return format_html('<span class="badge is-good">ok</span> {}', when)

    @admin.display(description="last check")
    def checked(self, key: OpenRouterKey) -> SafeString | str:
        """For the list: what it came to. A refusal stands with the state, the whole of it on the page."""
        if key.checked_at is None:
            return "not checked yet"
        tone, word = ("bad", "failed") if key.check_error else ("good", "ok")
        when = relative(key.checked_at, timezone.now())
        error = "" if key.state == KeyState.INVALID else shortened(key.check_error)
        return format_html(
            '<span class="badge is-{}">{}</span> <span title="{}">{}</span>{}',
            tone,
            word,
            f"{timezone.localtime(key.checked_at):%Y-%m-%d %H:%M:%S %Z}",
            when,
            format_html("<br>{}", error) if error else "",
        )

    @admin.display(description="added")
    def added(self, key: OpenRouterKey) -> SafeString | str:
        by = key.created_by.get_username() if key.created_by else "the environment" if key.from_environment else ""
        return format_html("{} {}", stamp(key.created_at), f"by {by}" if by else "")

    @admin.display(description="bills to")
    def bills_to(self, key: OpenRouterKey) -> str:
        return key.owner or NOTHING

    @admin.display(description="limit")
    def limit(self, key: OpenRouterKey) -> str:
        if key.limit_nano is None:
            return NOTHING if key.checked_at is None else "none"
        return dollars(key.limit_nano)

    @admin.display(description="remaining of the limit")
    def remaining(self, key: OpenRouterKey) -> str:
        return NOTHING if key.limit_remaining_nano is None else dollars(key.limit_remaining_nano)

    @admin.display(description="limit resets")
    def resets(self, key: OpenRouterKey) -> str:
        return key.limit_reset or NOTHING

    @admin.display(description="spent, as OpenRouter counts")
    def spent(self, key: OpenRouterKey) -> str:
        spans = (
            ("today", key.usage_daily_nano),
            ("this week", key.usage_weekly_nano),
            ("this month", key.usage_monthly_nano),
            ("in all", key.usage_nano),
        )
        return ", ".join(f"{dollars(nano)} {words}" for words, nano in spans if nano is not None) or NOTHING

    @admin.display(description="expires")
    def expires(self, key: OpenRouterKey) -> SafeString | str:
        never = NOTHING if key.checked_at is None else "never"
        return stamp_with_distance(key.expires_at, timezone.now(), missing=never)
