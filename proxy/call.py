"""One call, from admission to its last byte: the pump. It owns the upstream.

    admit -> try a key, perhaps others -> relay -> settle -> what finishes the answer goes out

Only what it waits for upstream is ever cancelled, by `leave` and `interrupt`, so that each admitted call is settled.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, cast

from keys.causes import Cause, Failure
from keys.lane import DatabaseAway
from keys.ledger_items import Admit, Admitted, Denied, NoKey, Selection, Switch
from proxy import failures
from proxy.call_log import log_denial, log_end, log_failed_key, log_shortage
from proxy.errors import (
    Refusal,
    bad_credential,
    internal_error,
    keys_exhausted,
    no_usable_key,
    overloaded,
    refusal_headers,
)
from proxy.exchange import Exchange
from proxy.messages_body import serialize
from proxy.outbox import Head, Outbox, WholeAnswer
from proxy.retry import Step
from proxy.service import Service
from proxy.settling import settle
from proxy.tally import Asked, Ending, Tally, client_left, interrupted
from proxy.upstream_try import UpstreamTry

logger = logging.getLogger("opensvm.proxy")

_STREAM_HEAD = Head(
    200,
    [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ],
)
_JSON_HEADERS = [(b"content-type", b"application/json")]
_SECONDS_AFTER_ENOUGH_KEYS = 1.0  # others may be free


class Call:
    """`run` is the pump; `leave` and `interrupt` end what it waits for."""

    def __init__(self, asked: Asked, document: dict[str, Any], exchange: Exchange, service: Service) -> None:
        self._asked = asked
        self._document = document  # let go once it is serialized: parsed, it takes several times its size
        self._service = service
        self._rules = service.rules
        self.outbox = Outbox(
            exchange,
            stream_head=_STREAM_HEAD if asked.is_stream else None,
            ping_seconds=self._rules.ping_seconds,
            first_event_seconds=self._rules.first_event_seconds,
            ping=asked.dialect.ping,
        )
        self._ended_by: Cause | None = None  # CLIENT_LEFT or INTERRUPTED
        self._waiting: asyncio.Task[Any] | None = None  # the pump's, while it waits for upstream
        self._refusal: Refusal | None = None  # what the client gets instead of the last failure's own text

    # -- from outside ------------------------------------------------------------------------------------------------
    def leave(self) -> None:
        """The client has gone: close upstream, settle what is known."""
        self._end(Cause.CLIENT_LEFT)

    def interrupt(self) -> None:
        """The process stops: what is not finished ends with an error."""
        self._end(Cause.INTERRUPTED)

    def _end(self, cause: Cause) -> None:
        if self._ended_by is None:
            self._ended_by = cause
            if self._waiting is not None:
                self._waiting.cancel()

    # -- the pump ----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Raises `ClientLeft` when the client does not read the end of its answer; the call is settled then."""
        self._service.begin_call(self)
        self.outbox.open(self.leave)
        try:
            admitted = await self._admit()
            if admitted is not None:
                await self._serve(Tally(self._asked, admitted, admitted.selection))
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            logger.exception("call failed", extra={"event": "call.failed", "request": self._asked.request_id})
            self._refuse(internal_error())
        finally:
            self._service.end_call(self)
            self.outbox.close()
        await self.outbox.end()

    async def _admit(self) -> Admitted | None:
        """Raises `Refusal`. None: the client may not send messages; the answer is on its way."""
        asked = self._asked
        item = Admit(
            asked.id,
            asked.request_id,
            asked.client_digest,
            asked.model,
            asked.is_stream,
            asked.created_at,
            asked.caller,
        )
        match await self._service.submit_new(item):
            case Admitted() as admitted:
                return admitted
            case Denied(reason):
                log_denial(reason, asked.client_prefix, asked.caller.client_ip, asked.request_id)
                raise bad_credential()
            case NoKey() as shortage:
                log_shortage(shortage, asked.request_id)
                raise _no_key_refusal(shortage)
            case other:
                raise TypeError(f"the lane answered {other!r} to an admission")

    async def _serve(self, tally: Tally) -> None:
        try:
            tally.payload = await self._take_payload(tally.admitted.model_sent)
            ending = await self._try_keys(tally)
        except Exception:
            logger.exception("call failed", extra={"event": "call.failed", "request": self._asked.request_id})
            self._refusal = internal_error()
            ending = Ending(Failure(Cause.INTERRUPTED, 500, "api_error", self._refusal.message, billed=True))
        refusal = (self._refusal or failures.refusal_of(ending.failure)) if ending.failure is not None else None
        row = tally.settlement(ending, refusal, has_begun=self.outbox.has_begun)
        settled = await settle(row, self._service)
        if settled:
            self._finish(ending, refusal)
        else:
            self._refuse(overloaded("The answer could not be recorded. Try again shortly.", 5))
        log_end(tally, ending, self._service.say)

    async def _take_payload(self, model: str) -> bytes:
        """Our own serialization of what we parsed, so that policy and upstream can't see two different requests."""
        document, self._document = self._document, {}
        if self._asked.body_bytes > self._rules.parse_in_thread_bytes:
            return await asyncio.to_thread(serialize, document, model=model)
        return serialize(document, model=model)

    # -- tries -------------------------------------------------------------------------------------------------------
    async def _try_keys(self, tally: Tally) -> Ending:
        """Ask keys until one answers, none is left, or asking further would be wrong."""
        while True:
            if self._ended_by is not None:
                return Ending(self._ended_failure(billed=False))
            tally.begin_try()
            outcome = await self._unless_ended(UpstreamTry(tally, self.outbox, self._service).run())
            if outcome is None:
                return Ending(self._ended_failure(billed=True))
            if isinstance(outcome, Ending):
                return outcome
            tally.note_failed_try(outcome, self._service.now())
            step = self._rules.retry.next_step(
                outcome, has_begun=self.outbox.has_begun, retries=tally.retries, keys_tried=len(tally.keys_tried)
            )
            if step is Step.GIVE_UP or not await self._prepare(step, tally, outcome):
                return Ending(outcome if self._ended_by is None else self._ended_failure(billed=False))

    async def _prepare(self, step: Step, tally: Tally, failure: Failure) -> bool:
        """Get ready for the next try; False if there is none."""
        if step is Step.SWITCH:
            return await self._switch(tally, failure) and not self.outbox.has_begun
        if step is Step.ENOUGH_KEYS:
            if failure.cause is not Cause.CANNOT_AFFORD:
                self._refusal = keys_exhausted(tally.met_rate_limit, _SECONDS_AFTER_ENOUGH_KEYS)
            return False
        pause = self._rules.retry.pause_seconds(failure, retries=tally.retries, jitter=random.random)
        tally.retries += 1
        await self._unless_ended(asyncio.sleep(pause, True))
        return self._ended_by is None and not self.outbox.has_begun

    async def _switch(self, tally: Tally, failure: Failure) -> bool:
        if self._ended_by is not None:
            return False
        item = Switch(
            id=self._asked.id,
            model_sent=tally.admitted.model_sent,
            client_id=tally.admitted.client_id,
            tried=frozenset(tally.keys_tried),
            failures=tuple(tally.unwritten),
        )
        try:
            found = await self._service.lane.submit(item)
        except DatabaseAway:
            self._refusal = overloaded("The service's database is not available. Try again shortly.", 5)
            return False
        tally.unwritten.clear()
        log_failed_key(tally.selection, failure, self._asked.request_id, is_last=not isinstance(found, Selection))
        if isinstance(found, Selection):
            tally.selection, tally.trial_passed = found, False
            return True
        if failure.cause is not Cause.CANNOT_AFFORD:
            log_shortage(cast(NoKey, found), self._asked.request_id)
            self._refusal = _no_key_refusal(cast(NoKey, found))
        return False

    # -- the end -----------------------------------------------------------------------------------------------------
    def _finish(self, ending: Ending, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._refuse(refusal)
        elif self._asked.is_stream:
            self.outbox.begin_stream()
            self.outbox.put_last(ending.last_bytes)
        else:
            self.outbox.answer(WholeAnswer(200, _JSON_HEADERS, ending.last_bytes))

    def _refuse(self, refusal: Refusal) -> None:
        """An HTTP error, or an error event if the stream has begun."""
        request_id, dialect = self._asked.request_id, self._asked.dialect
        if self.outbox.has_begun:
            self.outbox.put_last(dialect.error_event(refusal.error_type, refusal.message, request_id))
            return
        body = dialect.error_body(refusal.error_type, refusal.message, request_id)
        self.outbox.answer(WholeAnswer(refusal.status, refusal_headers(refusal), body))

    async def _unless_ended(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await `work`, which `leave` and `interrupt` can end; None if they did."""
        if self._ended_by is not None:
            work.close()
            return None
        task = self._waiting = asyncio.current_task(self.outbox.exchange.loop)
        assert task is not None
        try:
            return await work
        except asyncio.CancelledError:
            if self._ended_by is None or task.uncancel():
                raise  # somebody else's, who wants to end all of this
            return None
        finally:
            self._waiting = None

    def _ended_failure(self, *, billed: bool) -> Failure:
        """`billed`: it ended during a try, which may have been. A try that had failed before speaks for itself."""
        return client_left(billed=billed) if self._ended_by is Cause.CLIENT_LEFT else interrupted(billed=billed)


def _no_key_refusal(shortage: NoKey) -> Refusal:
    if shortage.pool_size == 0:
        return no_usable_key()
    return keys_exhausted(shortage.is_rate_limited, shortage.retry_after_seconds)
