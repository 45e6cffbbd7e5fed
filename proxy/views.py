"""The data plane's DRF views. Their `dispatch` is async: no thread, no `request.data`, no DRF authentication.

What a client may do is decided by the credential, the body and ADMIT, in this order; see `proxy.call`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import msgspec
from rest_framework.views import APIView

from keys.ledger_items import Caller
from keys.uuid7 import new_request_uuid, request_id_of
from proxy.call import Call
from proxy.call_log import log_denial
from proxy.credentials import HEADERS as CREDENTIAL_HEADERS
from proxy.credentials import Credential, MalformedCredential, read_credential
from proxy.data_plane_request import DataPlaneRequest
from proxy.dialects import CHAT, MESSAGES, Dialect
from proxy.errors import bad_credential, method_not_allowed
from proxy.exchange import Exchange, Headers
from proxy.messages_body import MessagesRequest
from proxy.service import Service
from proxy.tally import Asked
from proxy.upstream import Upstream

_SESSION_HEADERS = (b"x-claude-code-session-id", b"x-session-id")
_MAX_SESSION_CHARS = 256
_UNSENDABLE = bytes(byte for byte in range(256) if byte != 9 and not 32 <= byte < 127)  # in a header, by our own client


class CallResponse(msgspec.Struct, frozen=True, gc=False):
    """The answer of a call; `proxy.handler` has it run."""

    call: Call


@dataclass(frozen=True, slots=True)
class PlainResponse:
    """An answer that is ready; `proxy.handler` writes it. `fields` are its headers."""

    body: bytes = b""
    status: int = 200
    fields: Headers = field(default_factory=lambda: [(b"content-type", b"application/json")])


class DataPlaneView(APIView):
    """An `APIView` whose handlers are coroutines, as is what `dispatch` answers.

    Errors are `Refusal`s, which `proxy.handler` sends. `methods` are what the path takes beside OPTIONS, the usual one
    first.
    """

    methods: ClassVar[tuple[str, ...]] = ("POST",)
    dialect: ClassVar[Dialect] = MESSAGES

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """As DRF's own, without the wrapper that exempts from a middleware, which does not run here."""
        view: Any = super(APIView, cls).as_view(**initkwargs)
        view.cls, view.initkwargs = cls, initkwargs  # by which OpenAPI's document finds it
        return view

    def dispatch(  # type: ignore[override]
        self, request: Any, *args: Any, **kwargs: Any
    ) -> Awaitable[CallResponse | PlainResponse]:
        request.exchange.write_error = self.dialect.error_body
        if request.method == "OPTIONS":
            return self._answer_options(request)
        if request.method not in self.methods:
            raise method_not_allowed(request.method, self._allow)
        handler: Callable[..., Awaitable[CallResponse | PlainResponse]] = getattr(self, request.method.lower())
        return handler(request, *args, **kwargs)

    @property
    def _allow(self) -> str:
        return ", ".join((*self.methods, "OPTIONS"))

    async def _answer_options(self, request: DataPlaneRequest) -> PlainResponse:
        """Needs no client key: browsers send none with a preflight."""
        exchange = request.exchange
        preflight = request.service.rules.cors.preflight_for(
            exchange.header(b"origin"),
            methods=self._allow,
            asked_headers=exchange.header(b"access-control-request-headers"),
        )
        return PlainResponse(status=204, fields=[(b"allow", self._allow.encode()), *preflight])


class CallView(DataPlaneView):
    """A request that upstream answers."""

    async def post(self, request: DataPlaneRequest) -> CallResponse:
        exchange, service = request.exchange, request.service
        credential = get_credential(request)
        body, size = await _read_body(exchange, service, self.dialect)
        request_uuid, session = new_request_uuid(), session_id(exchange)
        exchange.name(request_id_of(request_uuid))
        asked = Asked(
            request_uuid,
            exchange.request_id,
            credential.digest,
            credential.prefix,
            body.model,
            self.dialect,
            body.stream,
            size,
            upstream_headers(exchange, session, is_stream=body.stream, dialect=self.dialect, upstream=service.upstream),
            Caller(exchange.client_ip, exchange.header(b"user-agent"), session),
            service.now(),
            time.monotonic(),
        )
        return CallResponse(Call(asked, body.document, exchange, service))


class MessagesView(CallView):
    """POST /v1/messages."""


class ChatCompletionsView(CallView):
    """POST /v1/chat/completions, for clients of OpenAI's API."""

    dialect = CHAT


def get_credential(request: DataPlaneRequest) -> Credential:
    exchange = request.exchange
    try:
        return read_credential(exchange.fields(*CREDENTIAL_HEADERS), request.service.vault)
    except MalformedCredential as exc:
        log_denial(exc.reason, exc.prefix, exchange.client_ip, exchange.request_id)
        raise bad_credential() from exc


async def _read_body(exchange: Exchange, service: Service, dialect: Dialect) -> tuple[MessagesRequest, int]:
    """The request and its size. Large bodies are parsed in a thread, so that the others' streams go on."""
    raw = await exchange.read_body()
    try:
        if len(raw) > service.rules.parse_in_thread_bytes:
            return await asyncio.to_thread(dialect.read_request, raw), len(raw)
        return dialect.read_request(raw), len(raw)
    finally:
        exchange.release_body()


def upstream_headers(
    exchange: Exchange, session: str, *, is_stream: bool, dialect: Dialect, upstream: Upstream
) -> httpx.Headers:
    """What goes up of a client's headers: all `anthropic-*`, its session, and nothing else."""
    own = tuple([(name, value) for name, value in exchange.headers if name.startswith(b"anthropic-")])
    headers = _headers_with(own, dialect, is_stream, upstream)
    if session:
        headers = headers.copy()
        headers["x-session-id"] = session
    return headers


@functools.lru_cache(maxsize=64)
def _headers_with(
    own: tuple[tuple[bytes, bytes], ...], dialect: Dialect, is_stream: bool, upstream: Upstream
) -> httpx.Headers:
    """With a client's own; there are as many of these as there are kinds of clients."""
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if is_stream else "application/json",
        "accept-encoding": "identity",
        **dialect.headers,
    }
    lists: dict[str, list[str]] = {}
    for name, value in own:
        lists.setdefault(name.decode("latin-1"), []).append(value.translate(None, _UNSENDABLE).decode().strip())
    headers.update({name: ", ".join(values) for name, values in lists.items() if any(values)})
    return upstream.headers_with(headers)


def session_id(exchange: Exchange) -> str:
    """The conversation, which OpenRouter keeps on one provider for the sake of its cache."""
    for name in _SESSION_HEADERS:
        value = exchange.header(name)
        if value and value.isascii() and value.isprintable():
            return value[:_MAX_SESSION_CHARS]
    return ""
