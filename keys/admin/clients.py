"""Clients: who may call us. A client key is shown once, on the page that answers its creation; it is kept nowhere."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_variables

from keys import usage
from keys.admin.base import RefusableForm, actor_of
from keys.admin.client_actions import CLIENT_ACTIONS
from keys.admin.client_replacement import ReplacementPage, replacement_page
from keys.admin.display import NOTHING, cost, stamp, stamp_with_distance
from keys.admin.filters import RevokedFilter
from keys.admin.paginator import PlainList
from keys.admin.row_actions import RowActionsAdmin
from keys.admin.rows import link_to, list_of, page_of
from keys.admin.snippets import snippets_for
from keys.models import Client, ModelAlias, RequestLog, UsageHour
from keys.services.clients import create_client, edit_client, refusal_to_replace

ANY_MODEL = "anthropic/claude-3.5-sonnet"


class ChangeClientForm(RefusableForm):
    class Meta:
        model = Client
        fields = ("name", "expires_at")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["expires_at"].help_text = f"In {timezone.get_current_timezone_name()}. Empty: never."


class AddClientForm(ChangeClientForm):
    may_read_stats = forms.BooleanField(
        required=False,
        label="May read statistics",
        help_text="Adds the scope stats: GET /api/keys/stats. Every client has the scope messages.",
    )


class ClientChangeList(PlainList):
    """Reads what the page's clients cost today at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: Any = attach_costs(list(self.result_list))


def attach_costs(clients: list[Client]) -> list[Client]:
    today = timezone.now().date()
    used = {line.target: line.usage for line in usage.usage_by_day(today, today, "client")}
    for client in clients:
        client.today = used.get(client.pk, usage.Usage())  # type: ignore[attr-defined]  # for the column below
    return clients


@admin.register(Client)
class ClientAdmin(RowActionsAdmin, ReplacementPage):
    row_actions = CLIENT_ACTIONS
    change_form_template = "keys/admin/client_change.html"
    list_display = ("name", "badge", "prefix", "scopes", "last_used", "cost_today", "expires", "created")
    list_filter = (RevokedFilter,)
    search_fields = ("name", "prefix")
    sortable_by = ("name",)
    facts = ("badge", "replacement", "prefix", "scopes", "last_used", "cost_today", "created")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Client]:
        return super().get_queryset(request).select_related("created_by", "replaced_by", "replaces")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ClientChangeList

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **{**kwargs, "form": ChangeClientForm if obj else AddClientForm})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name", "expires_at", *self.facts) if obj else ("name", "expires_at", "may_read_stats")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.facts if obj else ()

    @sensitive_variables()
    def save_by_service(self, request: HttpRequest, form: Any, change: bool) -> Client:
        typed, actor = form.cleaned_data, actor_of(request)
        if change:
            return edit_client(form.instance.pk, actor=actor, name=typed["name"], expires_at=typed["expires_at"])
        scopes = ("messages", "stats") if typed["may_read_stats"] else ("messages",)
        client_key, client = create_client(
            actor=actor, name=typed["name"], scopes=scopes, expires_at=typed["expires_at"]
        )
        request.new_client_key = client_key  # type: ignore[attr-defined]  # response_add shows it; it lives no longer
        return client

    @sensitive_variables()
    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        client_key: str = request.new_client_key  # type: ignore[attr-defined]  # see save_by_service
        return self.show_once(request, client_key, obj)

    @sensitive_variables()
    def show_once(self, request: HttpRequest, client_key: str, client: Client, **context: Any) -> HttpResponse:
        replaced: Client | None = context.get("replaced")
        context = {
            **context,
            "replaced_until": stamp(replaced.expires_at) if replaced else "",
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Client key",
            "client": client,
            "client_key": client_key,
            "snippets": snippets_for(client_key, url=settings.OPENSVM_URL, model=_some_model()),
            "page": page_of(client),
        }
        headers = {"Cache-Control": "no-store, private", "Pragma": "no-cache"}
        return TemplateResponse(request, "keys/admin/client_created.html", context, headers=headers)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        client = context.get("original")
        if client is not None:
            attach_costs([client])
            if request.user.has_perm("keys.view_requestlog"):
                context["requests_link"] = list_of(RequestLog, f"client={client.pk}")
            if request.user.has_perm("keys.view_usagehour"):
                context["cost_link"] = list_of(UsageHour, f"group=day&client={client.pk}")
            may_replace = self.has_change_permission(request, client) and self.has_add_permission(request)
            if may_replace and not refusal_to_replace(client, timezone.now()):
                context["replace_link"] = replacement_page(client)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="state")
    def badge(self, client: Client) -> SafeString:
        tone, word, reason = _state_of(client)
        return format_html('<span class="badge is-{}">{}</span> <span class="reason">{}</span>', tone, word, reason)

    @admin.display(description="replacement")
    def replacement(self, client: Client) -> SafeString | str:
        lines = []
        if client.replaced_by is not None:
            lines.append(format_html("replaced by {}", link_to(client.replaced_by)))
        if (older := getattr(client, "replaces", None)) is not None:
            lines.append(format_html("replaces {}", link_to(older)))
        return format_html_join(", ", "{}", ((line,) for line in lines)) or NOTHING

    @admin.display(description="last used")
    def last_used(self, client: Client) -> SafeString | str:
        return stamp(client.last_used_at, missing="never")

    @admin.display(description="cost today (UTC)")
    def cost_today(self, client: Client) -> str:
        used: usage.Usage = client.today  # type: ignore[attr-defined]  # see attach_costs
        return cost(used.cost_nano, used.unknown_costs)

    @admin.display(description="expires")
    def expires(self, client: Client) -> SafeString | str:
        return stamp_with_distance(client.expires_at, timezone.now(), missing="never")

    @admin.display(description="created")
    def created(self, client: Client) -> SafeString | str:
        by = f"by {client.created_by.get_username()}" if client.created_by else ""
        return format_html("{} {}", stamp(client.created_at), by)


def _some_model() -> str:
    return ModelAlias.objects.order_by("pk").values_list("name", flat=True).first() or ANY_MODEL


def _state_of(client: Client) -> tuple[str, str, SafeString | str]:
    if client.revoked_at is not None:
        return "off", "revoked", stamp(client.revoked_at)
    if client.expires_at is not None and client.expires_at <= timezone.now():
        return "off", "expired", stamp(client.expires_at)
    if client.replaced_by_id is not None and client.expires_at is not None:
        return "wait", "replaced", format_html("ends {}", stamp(client.expires_at))
    return "good", "valid", ""
