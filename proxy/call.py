"""One call, from admission to its last byte: the pump. It runs as a task of the service and owns the upstream.

    admit -> try a key, perhaps others -> relay -> settle -> what finishes the answer goes out

The pump itself is never cancelled, so that each admitted call is settled. What it waits for upstream is a task of its
own, and that one ends at once when the client leaves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import httpx

from keys.causes import Cause, Failure
from keys.journal import JournalFull
from keys.lane import DatabaseAway, LaneFull, LaneStopped
from keys.ledger_items import Admit, Admitted, Denied, NoKey, PassTrial, Selection, Settlement, Switch
from keys.sealing import KEY_COLUMN, KEY_TABLE
from proxy import failures
from proxy.answer_body import read_answer_body, read_error_body
from proxy.answers import UnreadableAnswer, read_answer, replace_model
from proxy.call_log import log_denial, log_end, log_failed_key, log_shortage
from proxy.errors import (
    Refusal,
    bad_credential,
    error_body,
    error_event,
    internal_error,
    keys_exhausted,
    no_usable_key,
    overloaded,
    refusal_headers,
)
from proxy.messages_body import serialize
from proxy.outbox import Head, Outbox, WholeAnswer
from proxy.retry import Step
from proxy.service import Service
from proxy.sse import EventTooLarge
from proxy.stream_relay import StreamRelay
from proxy.tally import Asked, Ending, Tally, client_left, interrupted
from proxy.upstream import NotSent, Unanswered

logger = logging.getLogger("opensvm.proxy")

_SETTLE_SECONDS_WHILE_AWAY = 0.2  # it is known to be away: no use in waiting longer
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_JSON_HEADERS = [(b"content-type", b"application/json")]


class Call:
    """`run` is the pump; `leave` and `interrupt` end what it waits for."""

    def __init__(self, asked: Asked, service: Service) -> None:
        self._asked = asked
        self._service = service
        self._rules = service.rules
        self.outbox = Outbox(
            stream_head=Head(200, _STREAM_HEADERS) if asked.body.stream else None,
            ping_seconds=self._rules.ping_seconds,
            first_event_seconds=self._rules.first_event_seconds,
        )
        self._ended_by: Cause | None = None  # CLIENT_LEFT or INTERRUPTED
        self._waiting_for: asyncio.Task[Any] | None = None
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
            if self._waiting_for is not None:
                self._waiting_for.cancel()

    # -- the pump ----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        self._service.calls.add(self)
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
            self._service.calls.discard(self)
            self.outbox.end()

    async def _admit(self) -> Admitted | None:
        """Raises `Refusal`. None: the client may not send messages; the answer is on its way."""
        asked = self._asked
        item = Admit(
            id=asked.id,
            request_id=asked.request_id,
            client_digest=asked.client_digest,
            model_asked=asked.body.model,
            stream=asked.body.stream,
            created_at=asked.created_at,
            caller=asked.caller,
        )
        match await self._submit_new(item):
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

    async def _submit_new(self, item: Admit) -> object:
        try:
            return await self._service.lane.submit(item)
        except DatabaseAway as exc:
            raise overloaded("The service's database is not available. Try again shortly.", 5) from exc
        except (LaneFull, LaneStopped) as exc:
            raise overloaded("The service is at its limit. Try again shortly.", 2) from exc

    async def _serve(self, tally: Tally) -> None:
        try:
            ending = await self._try_keys(tally)
        except Exception:
            logger.exception("call failed", extra={"event": "call.failed", "request": self._asked.request_id})
            self._refusal = internal_error()
            ending = Ending(Failure(Cause.INTERRUPTED, 500, "api_error", self._refusal.message, billed=True))
        settled = await self._settle(tally.settlement(ending, has_begun=self.outbox.has_begun))
        if settled:
            self._finish(ending)
        else:
            self._refuse(overloaded("The answer could not be recorded. Try again shortly.", 5))
        log_end(tally, ending)

    # -- tries -------------------------------------------------------------------------------------------------------
    async def _try_keys(self, tally: Tally) -> Ending:
        """Ask keys until one answers, none is left, or asking further would be wrong."""
        while True:
            tally.begin_try()
            outcome = await self._unless_ended(self._try_key(tally))
            if outcome is None:
                return Ending(self._ended_failure(tally))
            if isinstance(outcome, Ending):
                return outcome
            tally.note_failed_try(outcome, self._service.now())
            step = self._rules.retry.next_step(
                outcome, has_begun=self.outbox.has_begun, retries=tally.retries, keys_tried=len(tally.keys_tried)
            )
            if step is Step.GIVE_UP or not await self._prepare(step, tally, outcome):
                return Ending(outcome if self._ended_by is None else self._ended_failure(tally))

    async def _prepare(self, step: Step, tally: Tally, failure: Failure) -> bool:
        """Get ready for the next try; False if there is none."""
        if step is Step.SWITCH:
            return await self._switch(tally, failure)
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

    async def _try_key(self, tally: Tally) -> Ending | Failure:
        """One try with one key: an answer that was relayed to its end, or a failure."""
        try:
            response = await self._send(tally)
        except Unanswered as exc:
            return _transport_failure(exc)
        keeps_open = False
        try:
            self._note_generation(tally, response.headers.get("x-generation-id", ""))
            if not response.is_success:
                return self._classify(response, await read_error_body(response), tally)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                return await self._read_answer(response, tally)
            chunks = aiter(cast(httpx.AsyncByteStream, response.stream))
            outcome = await self._relay_stream(chunks, tally)
            if isinstance(outcome, Ending) and outcome.failure is None:
                keeps_open = True
                self._service.close_after_tail(response, chunks)
            return outcome
        except Unanswered as exc:
            return _transport_failure(exc)
        finally:
            if not keeps_open:
                await response.aclose()

    async def _send(self, tally: Tally) -> httpx.Response:
        selection = tally.selection
        secret = self._service.open_vault().unseal(
            selection.secret, table=KEY_TABLE, column=KEY_COLUMN, row=selection.key_id
        )
        body = serialize(self._asked.body.document, model=tally.admitted.model_sent)
        return await self._service.upstream.send_message(body, secret=secret.reveal(), headers=self._asked.headers)

    # -- answers -----------------------------------------------------------------------------------------------------
    async def _read_answer(self, response: httpx.Response, tally: Tally) -> Ending | Failure:
        """A JSON answer, held whole until it is settled."""
        body = await read_answer_body(response)
        try:
            answer = read_answer(body)
        except UnreadableAnswer:
            return self._classify(response, body, tally)
        if answer.error is not None or not answer.is_message or self._asked.body.stream:
            return self._classify(response, body, tally)
        tally.note_first_event()
        tally.usage = answer.usage
        tally.generation_id = answer.id or tally.generation_id
        return Ending(last_bytes=replace_model(body, ("model",), self._asked.body.model))

    def _note_generation(self, tally: Tally, generation_id: str) -> None:
        """Where to ask for the cost, should this process be killed."""
        if generation_id and generation_id != tally.generation_id:
            tally.generation_id = generation_id
            if self._service.journal is not None:
                self._service.journal.note_generation(self._asked.id, generation_id)

    async def _relay_stream(self, chunks: AsyncIterator[bytes], tally: Tally) -> Ending | Failure:
        """Pass events on as they come; ends with the held ones that finish the answer, or with a failure."""
        relay = StreamRelay(self._asked.body.model)
        try:
            async for chunk in chunks:
                await self._pass_on(relay.feed(chunk), relay, tally)
                if relay.is_finished or relay.error is not None:
                    break
            else:
                await self._pass_on(relay.finish(), relay, tally)
        except EventTooLarge as exc:
            return failures.transport_failure(sent=True, timed_out=False, detail=str(exc))
        finally:
            tally.usage = relay.usage.usage
            tally.generation_id = relay.usage.id or tally.generation_id
        if relay.is_finished:
            return Ending(last_bytes=relay.held)
        if relay.error is not None:
            failure = failures.classify_event(
                relay.error,
                now=self._service.now(),
                model=tally.admitted.model_sent,
                mid_stream=relay.has_started,
            )
            return dataclasses.replace(failure, billed=failure.billed or relay.has_started)
        return failures.transport_failure(sent=True, timed_out=False, detail="the stream ended before message_stop")

    async def _pass_on(self, passed: bytes, relay: StreamRelay, tally: Tally) -> None:
        if relay.has_started and tally.first_event_ms is None:
            tally.note_first_event()
            self._note_generation(tally, relay.usage.id)
            self._pass_trial(tally)
            self.outbox.begin_stream()
        if passed:
            await self.outbox.put(passed)

    def _pass_trial(self, tally: Tally) -> None:
        """The first good event proves that the key works: the others need not wait for the end of this stream."""
        if tally.selection.is_trial and not tally.trial_passed:
            tally.trial_passed = True
            self._service.spawn(self._report_trial(), "pass-trial")

    async def _report_trial(self) -> None:
        try:
            await self._service.lane.submit(PassTrial(self._asked.id))
        except DatabaseAway:
            return  # the settlement says it again

    def _classify(self, response: httpx.Response, body: bytes, tally: Tally) -> Failure:
        return failures.classify(
            response.status_code,
            response.headers,
            body,
            now=self._service.now(),
            model=tally.admitted.model_sent,
        )

    # -- the end -----------------------------------------------------------------------------------------------------
    async def _settle(self, settlement: Settlement) -> bool:
        """Whether the row is durable: in the ledger, or in the journal when the database takes too long."""
        lane, seconds = self._service.lane, self._rules.settle_seconds
        committed = self._service.spawn(lane.submit(settlement), "settle")
        await asyncio.wait({committed}, timeout=min(seconds, _SETTLE_SECONDS_WHILE_AWAY) if lane.is_away else seconds)
        if committed.done():
            committed.result()
            return True
        return await self._write_to_journal(settlement, committed)

    async def _write_to_journal(self, settlement: Settlement, committed: asyncio.Task[Any]) -> bool:
        """The lane goes on trying; it, or the next process, forgets the entry when the ledger has the row."""
        journal = self._service.journal
        if journal is None:
            return False
        try:
            await asyncio.to_thread(journal.record, settlement)
        except (JournalFull, OSError):
            logger.exception(
                "journal can't be written", extra={"event": "journal.failed", "request": settlement.request_id}
            )
            return False
        committed.add_done_callback(lambda task: None if task.exception() else journal.forget([settlement.id]))
        logger.warning(
            "settlement went to the journal: the database does not take it",
            extra={"event": "ledger.journaled", "request": settlement.request_id},
        )
        return True

    def _finish(self, ending: Ending) -> None:
        if ending.failure is not None:
            self._refuse(self._refusal or failures.refusal_of(ending.failure))
        elif self._asked.body.stream:
            self.outbox.begin_stream()
            self.outbox.put_last(ending.last_bytes)
        else:
            self.outbox.answer(WholeAnswer(200, _JSON_HEADERS, ending.last_bytes))

    def _refuse(self, refusal: Refusal) -> None:
        """An HTTP error, or an `error` event if the stream has begun."""
        request_id = self._asked.request_id
        if self.outbox.has_begun:
            self.outbox.put_last(error_event(refusal.error_type, refusal.message, request_id))
            return
        body = error_body(refusal.error_type, refusal.message, request_id)
        self.outbox.answer(WholeAnswer(refusal.status, refusal_headers(refusal), body))

    async def _unless_ended(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await `work` as a task that `leave` and `interrupt` can end; None if they did."""
        if self._ended_by is not None:
            work.close()
            return None
        task = self._waiting_for = asyncio.get_running_loop().create_task(work)
        try:
            return await task
        except asyncio.CancelledError:
            if self._ended_by is None:
                task.cancel()
                raise
            return None
        finally:
            self._waiting_for = None

    def _ended_failure(self, tally: Tally) -> Failure:
        billed = tally.tries > 0
        return client_left(billed=billed) if self._ended_by is Cause.CLIENT_LEFT else interrupted(billed=billed)


def _transport_failure(exc: Unanswered) -> Failure:
    return failures.transport_failure(sent=not isinstance(exc, NotSent), timed_out=exc.timed_out, detail=str(exc))


def _no_key_refusal(shortage: NoKey) -> Refusal:
    if shortage.pool_size == 0:
        return no_usable_key()
    return keys_exhausted(shortage.is_rate_limited, shortage.retry_after_seconds)
