"""The request that a view under /v1/ gets: Django's, without what no view there asks for."""

from __future__ import annotations

import io
from functools import cached_property
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict
from django.urls import ResolverMatch

from proxy.exchange import Exchange
from proxy.service import Service


class DataPlaneRequest(HttpRequest):
    """Method, path and route, with the exchange and the service beside them.

    `GET` and `META` are made when somebody asks: Django's own request spends more time on them than a view here runs.
    The body is the exchange's alone, so there are no `POST`, `FILES` and `COOKIES`.
    """

    def __init__(self, exchange: Exchange, service: Service, match: ResolverMatch) -> None:
        self.exchange = exchange
        self.service = service
        self.resolver_match = match
        self.method = exchange.scope["method"]
        self.path = self.path_info = exchange.scope["path"]

    @cached_property
    def GET(self) -> QueryDict:  # type: ignore[override] # noqa: N802 - Django's name
        return QueryDict(self.exchange.scope["query_string"])

    @cached_property
    def META(self) -> dict[str, Any]:  # type: ignore[override] # noqa: N802
        meta: dict[str, Any] = ASGIRequest(self.exchange.scope, io.BytesIO()).META
        return meta
