"""Serves one connection: request after request to the sandbox, its replies to the wire, its bills to the ledger."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from opensvm.sandbox.answers import COMMENT
from opensvm.sandbox.app import Sandbox
from opensvm.sandbox.control import is_control
from opensvm.sandbox.errors import Failed
from opensvm.sandbox.received import Received
from opensvm.sandbox.reply import Reply, failure_reply
from opensvm.sandbox.wire import BrokenOff, ClientLeft, Wire

logger = logging.getLogger("opensvm.sandbox")


@dataclass(slots=True)
class Exchange:
    """One connection, known by its number."""

    sandbox: Sandbox
    wire: Wire
    connection: int
    served: int = 0

    async def serve(self) -> None:
        """Until either side ends the connection."""
        try:
            with contextlib.suppress(ClientLeft, BrokenOff, h11.LocalProtocolError):
                await self._apply_fault("accept")
                await self._serve_all()
        finally:
            self.wire.close()

    async def _serve_all(self) -> None:
        try:
            while await self._serve_next():
                pass
        except h11.RemoteProtocolError as exc:
            await self._send(failure_reply(Failed(exc.error_status_hint, str(exc), "B")))

    async def _serve_next(self) -> bool:
        """One request and its reply. False when there is no other."""
        idle = self.sandbox.config.idle_seconds if self.served else None
        if not await self.wire.first_byte(idle):
            return False
        read = await self.wire.read_request()
        if read is None:
            return False
        received = self._received(*read)
        if not is_control(received.path):
            await self._apply_fault("request")
        reply = self._answer(received)
        await self._send_and_settle(received, reply)
        self.served += 1
        return self.wire.next_cycle() and not reply.close_after

    async def _apply_fault(self, at: str) -> None:
        fault = self.sandbox.faults.take(at)
        if fault is not None:
            await self.wire.break_off(fault)

    def _received(self, head: h11.Request, body: bytes) -> Received:
        target = urlsplit(head.target.decode("ascii", "replace"))
        headers: dict[str, str] = {}
        for name, value in head.headers:
            text = value.decode("latin-1")
            key = name.decode("ascii")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return Received(
            number=len(self.sandbox.inbox.requests) + 1,
            connection=self.connection,
            at=self.sandbox.now(),
            method=head.method.decode("ascii"),
            path=unquote(target.path),
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers=headers,
            raw_body=body,
        )

    def _answer(self, received: Received) -> Reply:
        if is_control(received.path) and not self.wire.is_local:
            return failure_reply(Failed(403, "The sandbox is controlled from its own machine only.", "B"))
        try:
            return self.sandbox.answer(received)
        except Exception as exc:  # the author of a test sees it at once, instead of a connection that ends
            logger.exception("The sandbox failed at %s %s", received.method, received.path)
            return failure_reply(Failed(500, f"The sandbox itself failed: {exc!r}", "B"))

    async def _send_and_settle(self, received: Received, reply: Reply) -> None:
        now = self.sandbox.now
        progress = Progress()
        try:
            if reply.hang_up is not None:
                await self.wire.break_off(reply.hang_up)
            await self._send(reply, progress, received)
            received.whole = True
        except ClientLeft:
            received.left_at = now()
            raise
        finally:
            received.ended_at = now()
            if reply.meter is not None:
                reply.meter.end(progress.output_tokens, now(), whole=received.whole)

    async def _send(self, reply: Reply, progress: Progress | None = None, received: Received | None = None) -> None:
        """The whole reply, or up to where it is cut."""
        progress = progress or Progress()
        await self.wire.wait(reply.delay_seconds)
        self.wire.send(h11.Response(status_code=reply.status, headers=_framed(reply), reason=_reason(reply.status)))
        if received is not None:
            received.status = reply.status
        for part in reply.parts:
            await self._stay_silent(part.delay_seconds, reply)
            if part.settles and reply.meter is not None:
                reply.meter.finish(self.sandbox.now())
            for piece in _pieces(part.payload, reply.slice_bytes):
                self.wire.send(h11.Data(data=piece))
                await self.wire.flush()
            progress.output_tokens = max(progress.output_tokens, part.output_tokens)
        if reply.cut is not None:
            await self.wire.break_off(reply.cut)
        self.wire.send(h11.EndOfMessage())

    async def _stay_silent(self, seconds: float, reply: Reply) -> None:
        """Waits, with a comment now and then where the script wants them."""
        every = reply.comment_seconds
        while every is not None and seconds > every:
            await self.wire.wait(every)
            self.wire.send(h11.Data(data=COMMENT.payload))
            await self.wire.flush()
            seconds -= every
        await self.wire.wait(seconds)


@dataclass(slots=True)
class Progress:
    """How far a reply has got."""

    output_tokens: int = 0


def _framed(reply: Reply) -> list[tuple[str, str]]:
    """Its headers, with the length of a body that is not chunked."""
    headers = list(reply.headers)
    if reply.chunked or any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
        return headers
    return [*headers, ("Content-Length", str(sum(len(part.payload) for part in reply.parts)))]


_REASONS = {200: b"OK", 201: b"Created", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required"}


def _reason(status: int) -> bytes:
    return _REASONS.get(status, b"")


def _pieces(payload: bytes, size: int | None) -> Iterator[bytes]:
    step = size or max(len(payload), 1)
    return (payload[at : at + step] for at in range(0, len(payload), step))
