"""What Django's own URL routing serves. `/v1/` is not here: `opensvm.asgi` hands it to the lean handler in `proxy`."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from opensvm.health import healthz, readyz

urlpatterns = [
    path("", RedirectView.as_view(url="/admin/")),
    path("admin/", admin.site.urls),
    path("healthz", healthz),
    path("readyz", readyz),
]
