"""The ASGI application: the data plane under /v1/, Django for everything else, and the life of the process.

`/v1/` never sees Django's middleware. On SIGTERM open answers get `OPENSVM_DRAIN` seconds, then they end with an
error and are settled; the server's own handler runs after ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Any

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opensvm.settings")
django.setup(set_prefix=False)

from django.core.handlers.asgi import ASGIHandler  # noqa: E402 - Django must be set up first

from keys.uuid7 import new_request_uuid, request_id_of  # noqa: E402
from opensvm import health  # noqa: E402
from opensvm.edge import check_framing, is_data_plane, is_usual, trusted_scope, with_host  # noqa: E402
from opensvm.environment import IPNetwork  # noqa: E402
from opensvm.wiring import build_service  # noqa: E402
from proxy.errors import Refusal, error_body, refusal_headers  # noqa: E402
from proxy.exchange import Message, Receive, Scope, Send  # noqa: E402
from proxy.handler import DataPlane  # noqa: E402
from proxy.service import Service  # noqa: E402

logger = logging.getLogger("opensvm")

_PROBES = frozenset({"/healthz", "/readyz"})  # asked for by address, so their Host is none of ours
_PR_SET_PDEATHSIG = 1
_LANE_STOP_SECONDS = 10.0
_LAST_SECONDS = 8  # after the drain; the server's own patience is shorter
_JOURNAL_SECONDS = 2.0  # what the ledger did not take in time goes to the journal


class Application:
    """One for each web process; `service` exists from the server's startup to its shutdown."""

    def __init__(self) -> None:
        self._django = ASGIHandler()
        self.service: Service | None = None
        self._data_plane: DataPlane | None = None
        self._max_header_bytes: int = settings.MAX_HEADER_BYTES
        self._trusted_proxies: Sequence[IPNetwork] = settings.OPENSVM_TRUSTED_PROXIES

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """No coroutine of its own: it would be gone through each time that a request of the data plane goes on."""
        if scope["type"] != "http":
            return self._live(receive, send) if scope["type"] == "lifespan" else _nothing()
        if not is_usual(scope, max_header_bytes=self._max_header_bytes):
            try:
                check_framing(
                    scope["headers"],
                    http_version=scope.get("http_version", "1.1"),
                    max_header_bytes=self._max_header_bytes,
                )
            except Refusal as refusal:
                return _refuse(refusal, send)
            scope = trusted_scope(scope, self._trusted_proxies)
        if is_data_plane(scope["path"]) and self._data_plane is not None:
            return self._data_plane(scope, receive, send)
        if scope["path"] in _PROBES:
            trouble = self.service.lane.trouble if self.service is not None else ""
            scope = {**with_host(scope, settings.ALLOWED_HOSTS[0]), health.TROUBLE: trouble}
        return self._django(scope, receive, _stamped(send))  # type: ignore[arg-type]

    # -- the life of the process -------------------------------------------------------------------------------------
    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                before = _end_at_sigterm()
                try:
                    self.start()
                except Exception as exc:
                    logger.exception("web process can't start", extra={"event": "web.start_failed"})
                    await send({"type": "lifespan.startup.failed", "message": str(exc)})
                    return
                _calm_garbage_collector()
                _drain_on_sigterm(self, before)
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self, service: Service | None = None) -> None:
        """Make the data plane ready. Nothing before this opens a connection or a thread: workers are forked."""
        _die_with_parent()
        self.service = service or build_service()
        self.service.lane.start()
        self._data_plane = DataPlane(self.service)

    async def stop(self) -> None:
        """After the last answer: settle, write what waits, close upstream."""
        service = self.service
        if service is None:
            return
        await self.drain(0.0)
        await service.wait_for_calls(settings.SETTLE_TIMEOUT_SECONDS + _JOURNAL_SECONDS)
        await asyncio.to_thread(service.lane.stop, _LANE_STOP_SECONDS)
        if service.journal is not None:
            service.journal.close()
        await service.upstream.aclose()
        self.service = self._data_plane = None

    async def drain(self, seconds: float) -> None:
        """Give open answers `seconds`, then end the rest with an error; each is settled."""
        if self.service is None:
            return
        if not await self.service.wait_for_calls(seconds):
            for call in tuple(self.service.calls):
                call.interrupt()


Handler = Callable[[int, FrameType | None], Any] | int | None


def _end_at_sigterm() -> Handler:
    """While it starts a process has nothing to drain, and granian hangs at a signal before it serves."""
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # not the main thread: a test's server
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return before


def _drain_on_sigterm(application: Application, before: Handler) -> None:
    """Chain our handler before the server's: asyncio's own `add_signal_handler` would replace it.

    Not before the loop's: uvloop hears of the signal by itself, and would tell granian twice. At the second one its
    handler may wait, with the interpreter's lock in its hands, for a thread that waits for that lock; so the kernel's
    alarm ends the process when its time is over. Its server does so too, but may be gone itself.
    """
    loop = asyncio.get_running_loop()
    is_the_loops = getattr(before, "__self__", None) is loop

    def drain() -> None:
        service = application.service
        if service is not None:
            service.spawn_unwatched(application.drain(settings.OPENSVM_DRAIN_SECONDS))

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(settings.OPENSVM_DRAIN_SECONDS) + _LAST_SECONDS)
        loop.call_soon_threadsafe(drain)
        if callable(before) and not is_the_loops:
            before(number, frame)

    try:
        signal.signal(signal.SIGTERM, on_sigterm)
    except ValueError:
        return  # not the main thread: a test's server


def _calm_garbage_collector() -> None:
    """What is loaded stays for ever; looking through it again and again makes pauses of 30 to 60 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _die_with_parent() -> None:
    """A killed supervisor leaves no orphan. Linux only; elsewhere the supervisor's own signals have to do."""
    if sys.platform == "linux" and "OPENSVM_WEB_SERVER" in os.environ:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(os.environ["OPENSVM_WEB_SERVER"]):
            os._exit(1)  # it was killed while we were starting: nobody would ever stop us


def _stamped(send: Send) -> Send:
    """Every response has one `request-id`; an error's body names it, so a view's own one stays."""
    request_id = request_id_of(new_request_uuid()).encode()

    async def stamped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[Any] = list(message.get("headers", []))
            if all(name.lower() != b"request-id" for name, _ in headers):
                headers.append((b"request-id", request_id))
            message = {**message, "headers": headers}
        await send(message)

    return stamped


async def _nothing() -> None:
    """The answer to what is neither HTTP nor the server's own."""


async def _refuse(refusal: Refusal, send: Send) -> None:
    request_id = request_id_of(new_request_uuid())
    body = error_body(refusal.error_type, refusal.message, request_id)
    headers = [*refusal_headers(refusal), (b"request-id", request_id.encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


application = Application()
