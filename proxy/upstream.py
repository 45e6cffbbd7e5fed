"""The connection to OpenRouter: httpx requests and responses, carried by aiohttp's connection pool.

httpx is the interface, so tests plug in any `httpx.AsyncBaseTransport`; aiohttp is the carrier, because httpx's own
pool is O(n) in open connections. What matters about a failed try is whether it may have been billed, so every
error says whether the request can have left this process.

    Unanswered
    ├── NotSent   the connection was never made: safe to send again
    └── Broken    sent, or perhaps sent, and then cut or silent: never sent again
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import httpx

_IDLE_SECONDS = 15.0  # an idle connection that upstream is about to close would lose the next request
_FAULTS = (aiohttp.ClientError, OSError)  # a TimeoutError is an OSError
_LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Unanswered(Exception):
    """A try that got no HTTP answer, or not all of it."""

    timed_out = False


class NotSent(Unanswered):
    """No connection to upstream could be made."""


class Broken(Unanswered):
    """The connection was cut or fell silent after the request may have been sent."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """`silence_seconds`: the longest time without a byte of any kind from upstream."""

    base_url: str
    silence_seconds: float
    connect_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """One aiohttp session. Closing a response that has not ended closes its connection."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `NotSent` or `Broken`."""
        try:
            response = await self._open_session().request(
                request.method,
                str(request.url),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=request.stream.content if isinstance(request.stream, _Sent) else await request.aread(),
                allow_redirects=False,
            )
        except _FAULTS as exc:
            raise _unanswered(exc) from exc
        return httpx.Response(
            status_code=response.status, headers=response.raw_headers, stream=_Body(response), request=request
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """Made on first use, inside the loop that uses it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=_IDLE_SECONDS, ttl_dns_cache=60, ssl=_ssl_context(self._config.base_url)
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._config.connect_seconds, sock_read=self._config.silence_seconds
                ),
                proxy=proxy_of_environment(self._config.base_url),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


class _Sent(httpx.ByteStream):
    """The body of a request. Given as a stream, httpx looks at nothing of it, which is most of what a request costs."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content


class _Body(httpx.AsyncByteStream):
    """The answer's bytes as they come.

    No generator: one that is not read to its end is closed by a task of the loop's.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._response.content.readany()
        except _FAULTS as exc:
            raise _unanswered(exc) from exc
        if not chunk:
            raise StopAsyncIteration
        return chunk

    @property
    def has_ended(self) -> bool:
        return self._response.content.at_eof()

    async def aclose(self) -> None:
        if self.has_ended:
            self._response.release()
        else:
            self._response.close()


class Upstream:
    """Sends one request with one key; what comes back is httpx's response, its body unread."""

    def __init__(self, config: UpstreamConfig, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._config = config
        self._transport = transport or AiohttpTransport(config)
        self._urls: dict[str, httpx.URL] = {}

    def headers_with(self, own: Mapping[str, str]) -> httpx.Headers:
        """What `send` is given, for a kind of request: to build them takes longer than to copy them."""
        return httpx.Headers({**own, **self._config.headers})

    def send(self, path: str, body: bytes, *, secret: str, headers: httpx.Headers) -> Awaitable[httpx.Response]:
        """POST to a path of ours, never one of the client's. `headers` are copied.

        Raises `NotSent` or `Broken`.
        """
        if path not in self._urls:
            self._urls[path] = httpx.URL(f"{self._config.base_url}{path}")
        request = httpx.Request("POST", self._urls[path], headers=headers, stream=_Sent(body))
        request.headers["authorization"] = f"Bearer {secret}"
        return self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()


def read_headers(response: httpx.Response, *names: bytes) -> list[str]:
    """The first value of each; empty where there is none. Names in lower case.

    `response.headers` tries an encoding on all of them at each look.
    """
    values = {name.lower(): value for name, value in reversed(response.headers.raw)}
    return [values.get(name, b"").decode("latin-1") for name in names]


def has_ended(response: httpx.Response) -> bool:
    """Whether all of it was read, so that closing it leaves its connection to others; False where that is unknown."""
    return isinstance(response.stream, _Body) and response.stream.has_ended


def proxy_of_environment(base_url: str) -> str | None:
    """What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.

    aiohttp would ask them, and the user's .netrc, in threads and anew for each request; and what it finds in .netrc for
    upstream's host would fail each request, which has an `authorization` of its own.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host in _LOCAL_HOSTS or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _unanswered(exc: Exception) -> Unanswered:
    """aiohttp's errors in our terms. Whatever is not surely before the request counts as sent."""
    if isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return NotSent(f"no connection to upstream: {exc}")
    if isinstance(exc, aiohttp.InvalidURL):
        return NotSent(f"upstream's address can't be used: {exc}")
    if isinstance(exc, TimeoutError):
        return Broken("upstream was silent for too long", timed_out=True)
    return Broken(f"upstream's answer was cut: {exc or type(exc).__name__}")


def _ssl_context(base_url: str) -> ssl.SSLContext | bool:
    """httpx's own defaults: certifi's roots, or SSL_CERT_FILE."""
    return httpx.create_ssl_context() if base_url.startswith("https://") else True
