"""`/api/schema/` and `/api/docs/`, for staff. The page has no inline script: its content policy forbids it."""

from __future__ import annotations

from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularAPIView

URLCONF = "opensvm.openapi.urls"

schema_view = require_safe(
    staff_member_required(SpectacularAPIView.as_view(urlconf=URLCONF, renderer_classes=[OpenApiJsonRenderer]))
)


@require_safe
@staff_member_required
def docs_view(request: HttpRequest) -> HttpResponse:
    """Swagger's page, from our own static files."""
    return render(request, "opensvm/api_docs.html")
