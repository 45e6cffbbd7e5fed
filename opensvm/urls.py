"""What Django's own URL routing serves. `/v1/` is not here: `opensvm.asgi` hands it to the lean handler in `proxy`."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views import defaults
from django.views.generic import RedirectView

from keys.uuid7 import new_request_uuid, request_id_of
from opensvm.health import healthz, readyz
from opensvm.openapi.views import docs_view, schema_view
from proxy import errors
from proxy.errors import Refusal
from proxy.stats_view import KeyStatsView, refused
from proxy.usage_view import UsageView

# Where clients ask whose base URL lacks its /v1.
_MISSED = ("/messages", "/chat/", "/models", "/responses", "/completions", "/embeddings")

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/", admin.site.urls),
    path("api/keys/stats", KeyStatsView.as_view()),
    path("api/usage", UsageView.as_view()),
    path("api/schema/", schema_view, name="api-schema"),
    path("api/docs/", docs_view, name="api-docs"),
    path("healthz", healthz),
    path("readyz", readyz),
]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        return _refused(Refusal(400, "invalid_request_error", "The request can't be understood."))
    return defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path.startswith(_MISSED):
        return _refused(errors.not_found(request.path))
    if _is_for_programs(request):
        return _refused(Refusal(404, "not_found_error", f"There is nothing at {request.path[:200]}."))
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if _is_for_programs(request):
        return _refused(errors.internal_error())
    return defaults.server_error(request)


handler400 = bad_request
handler404 = not_found
handler500 = server_error


def _is_for_programs(request: HttpRequest) -> bool:
    return request.path.startswith(("/api/", "/v1/"))


def _refused(refusal: Refusal) -> HttpResponse:
    return refused(refusal, request_id_of(new_request_uuid()))
