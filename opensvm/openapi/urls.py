"""The paths that the OpenAPI document describes: all of /v1, which Django's routing does not serve, and of /api."""

from __future__ import annotations

from django.urls import path

from opensvm.openapi import operations as operations  # describes the views
from proxy.stats_view import KeyStatsView
from proxy.urls import urlpatterns as data_plane
from proxy.usage_view import UsageView

urlpatterns = [
    *data_plane,
    path("api/keys/stats", KeyStatsView.as_view()),
    path("api/usage", UsageView.as_view()),
]
