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
from opensvm.sandbox.reply import Part, Reply, failure_reply
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
            await self._send(failure_reply(Failed(exc.error_status_hint, str(exc), "B")), Progress())

    async def _serve_next(self) -> bool:
        """One request and its reply. False when there is no other."""
        idle = self.sandbox.config.idle_seconds if self.served else None
        if not await self.wire.first_byte(idle):
            return False
        if b" /sandbox" not in self.wire.buffered().partition(b"\n")[0]:
            await self._apply_fault("first_byte")
        read = await self.wire.read_request()
        if read is None:
            return False
        received = self._received(*read)
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
            await self._send(reply, progress)
            received.whole = True
        except ClientLeft:
            received.left_at = now()
            raise
        finally:
            received.status = progress.status
            received.ended_at = now()
            if reply.meter is not None:
                reply.meter.end(progress.output_tokens, now(), whole=received.whole)

    async def _send(self, reply: Reply, progress: Progress) -> None:
        """The whole reply, or up to where it is cut."""
        await self.wire.wait(reply.delay_seconds)
        if reply.hang_up is not None:
            await self.wire.break_off(reply.hang_up)
        self.wire.send(h11.Response(status_code=reply.status, headers=_framed(reply), reason=_reason(reply.status)))
        progress.status = reply.status
        for part in reply.parts:
            await self._stay_silent(part.delay_seconds, reply)
            await self._send_part(part, reply)
            progress.output_tokens = max(progress.output_tokens, part.output_tokens)
        if reply.cut == "stall":
            await self._stay_silent(None, reply)
        if reply.cut is not None:
            await self.wire.break_off(reply.cut)
        self.wire.send(h11.EndOfMessage())

    async def _send_part(self, part: Part, reply: Reply) -> None:
        """The bill is entered before the client can know of it, and not when it has left by then."""
        for number, piece in enumerate(_pieces(part.payload, reply.slice_bytes)):
            await self.wire.flush()
            if number == 0 and part.settles and reply.meter is not None:
                reply.meter.finish(self.sandbox.now())
            self.wire.send(h11.Data(data=piece))

    async def _stay_silent(self, seconds: float | None, reply: Reply) -> None:
        """Waits (None: for ever), with a comment now and then where the script wants them."""
        every = reply.comment_seconds
        while every is not None and (seconds is None or seconds > every):
            await self.wire.wait(every)
            self.wire.send(h11.Data(data=COMMENT.payload))
            seconds = None if seconds is None else seconds - every
        await self.wire.wait(seconds)


@dataclass(slots=True)
class Progress:
    """How far a reply has got."""

    output_tokens: int = 0
    status: int | None = None


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
