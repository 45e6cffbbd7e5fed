"""What a browser may load and run on our pages: only what we serve ourselves, and nothing inline.

Middleware, the first of all, so that static files and errors have it too. Nothing under /v1/ passes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # data: is what the admin's own style sheets draw icons with
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

Answer = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class ContentSecurityMiddleware:
    """Sync and async, so that no thread is needed for it."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        response = self._get_response(request)
        return stamped(response) if isinstance(response, HttpResponseBase) else self._later(response)

    async def _later(self, answer: Awaitable[HttpResponseBase]) -> HttpResponseBase:
        return stamped(await answer)


def stamped(response: HttpResponseBase) -> HttpResponseBase:
    response.headers["Content-Security-Policy"] = POLICY
    return response
