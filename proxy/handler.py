"""The lean ASGI handler in front of the /v1/ views.

Django's own handler costs a thread, its signals and its middleware for each request, and spools each body to disk
before a view sees it. This one builds Django's request, resolves the view, awaits it and writes what it answers.
"""

from __future__ import annotations

import contextlib
import logging

from django.urls import Resolver404, ResolverMatch
from django.urls.resolvers import URLResolver, get_resolver

from proxy.data_plane_request import DataPlaneRequest
from proxy.errors import Refusal, internal_error, invalid_request, not_found, refusal_headers
from proxy.exchange import ClientLeft, Exchange, Receive, Scope, Send
from proxy.service import Service
from proxy.views import CallResponse, PlainResponse

logger = logging.getLogger("opensvm.proxy")


class DataPlane:
    """Serves /v1/; one for each process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._resolver: URLResolver = get_resolver("proxy.urls")
        self._fixed_paths: dict[str, ResolverMatch] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(
            scope=scope,
            receive=receive,
            send=send,
            limits=self._service.rules.body,
            budget=self._service.body_budget,
            waits=self._service.waits,
        )
        exchange.extra_headers = self._service.rules.cors.headers_for(exchange.header(b"origin"))
        try:
            response = await self._ask_view(exchange)
            if isinstance(response, CallResponse):
                await self._relay(exchange, response)
            elif isinstance(response, Refusal):
                await _send_refusal(exchange, response)
            else:
                await _answer(exchange, response)
        except ClientLeft:
            logger.debug("client left before its request was read", extra={"event": "client.left"})
            await _answer_cut_body(exchange)
        finally:
            exchange.release_body()

    async def _ask_view(self, exchange: Exchange) -> CallResponse | PlainResponse | Refusal:
        """Raises `ClientLeft`."""
        try:
            match = self._resolve(exchange.scope["path"])
            request = DataPlaneRequest(exchange, self._service, match)
            response: CallResponse | PlainResponse = await match.func(request, *match.args, **match.kwargs)
        except Refusal as refusal:
            return refusal
        except ClientLeft:
            raise
        except Exception:
            logger.exception("request failed", extra={"event": "request.failed", "request": exchange.request_id})
            return internal_error()
        return response

    def _resolve(self, path: str) -> ResolverMatch:
        """A path without parameters is looked up once: there are as many of them as there are routes."""
        match = self._fixed_paths.get(path)
        if match is None:
            try:
                match = self._resolver.resolve(path)
            except Resolver404 as exc:
                raise not_found(path) from exc
            if not match.args and not match.kwargs:
                self._fixed_paths[path] = match
        return match

    async def _relay(self, exchange: Exchange, response: CallResponse) -> None:
        """The server's own task is the pump: it does not cancel it, however the client ends."""
        exchange.watch(response.call.leave)
        try:
            await response.call.run()
        except ClientLeft:
            logger.debug("client left during its answer", extra={"event": "client.left"})
        finally:
            exchange.unwatch()


async def _answer(exchange: Exchange, response: PlainResponse) -> None:
    closing = [(b"connection", b"close")] if exchange.leaves_body_unread else []
    await exchange.answer(response.status, [*response.fields, *closing], response.body)


async def _answer_cut_body(exchange: Exchange) -> None:
    """Who only half-closed, or broke off a chunk, is still there to hear why; for everybody else this goes nowhere."""
    if not exchange.has_begun:
        with contextlib.suppress(ClientLeft):
            await _send_refusal(exchange, invalid_request("body: ended before it was complete"))


async def _send_refusal(exchange: Exchange, refusal: Refusal) -> None:
    """An unread body is not waited for: the connection is closed after the answer."""
    body = exchange.write_error(refusal.error_type, refusal.message, exchange.request_id)
    headers = refusal_headers(refusal)
    if not exchange.is_body_read:
        headers.append((b"connection", b"close"))
    await exchange.answer(refusal.status, headers, body)
