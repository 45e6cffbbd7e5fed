"""One try with one key: the request goes up, its answer is relayed or its failure classified. Part of `proxy.call`."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable
from typing import cast

import httpx

from keys.causes import Failure
from keys.lane import DatabaseAway
from keys.ledger_items import PassTrial
from keys.sealing import KEY_COLUMN, KEY_TABLE
from proxy import failures
from proxy.answer_body import read_answer_body, read_error_body
from proxy.answers import UnreadableAnswer
from proxy.model_in_answer import replace_known_model
from proxy.outbox import Outbox
from proxy.service import Service
from proxy.sse import EventTooLarge
from proxy.stream_relay import StreamRelay
from proxy.tally import Ending, Tally
from proxy.upstream import NotSent, Unanswered, has_ended, read_headers


class UpstreamTry:
    """`run` may be cancelled at any await; it then closes upstream, and the tally holds what became known."""

    def __init__(self, tally: Tally, outbox: Outbox, service: Service) -> None:
        self._tally = tally
        self._asked = tally.asked
        self._outbox = outbox
        self._service = service

    async def run(self) -> Ending | Failure:
        """One try with one key: an answer that was relayed to its end, or a failure."""
        try:
            response = await self._send()
        except Unanswered as exc:
            return _transport_failure(exc)
        keeps_open, stream = False, cast(httpx.AsyncByteStream, response.stream)
        try:
            generation_id, content_type = read_headers(response, b"x-generation-id", b"content-type")
            self._note_generation(generation_id)
            if not 200 <= response.status_code < 300:
                return self._classify(response, await read_error_body(response))
            is_stream = content_type.lower().startswith("text/event-stream")
            if not (is_stream and self._asked.is_stream):
                return await self._read_answer(response)
            chunks = aiter(stream)
            outcome = await self._relay_stream(chunks)
            if isinstance(outcome, Ending) and outcome.failure is None and not has_ended(response):
                keeps_open = True
                self._service.close_after_tail(response, chunks)
            return outcome
        except Unanswered as exc:
            return _transport_failure(exc)
        finally:
            if not keeps_open:
                await stream.aclose()  # what `response.aclose` does, without its wrappings

    def _send(self) -> Awaitable[httpx.Response]:
        selection = self._tally.selection
        secret = self._service.vault.unseal(selection.secret, table=KEY_TABLE, column=KEY_COLUMN, row=selection.key_id)
        return self._service.upstream.send(
            self._asked.dialect.path, self._tally.payload, secret=secret.reveal(), headers=self._asked.headers
        )

    # -- answers -----------------------------------------------------------------------------------------------------
    async def _read_answer(self, response: httpx.Response) -> Ending | Failure:
        """A JSON answer, held whole until it is settled."""
        body = await read_answer_body(response)
        try:
            answer = self._asked.dialect.read_answer(body)
        except UnreadableAnswer:
            return self._classify(response, body)
        if answer.error is not None or not answer.is_message or self._asked.is_stream:
            return self._classify(response, body)
        self._tally.note_first_event()
        self._tally.usage = answer.usage
        self._tally.generation_id = answer.id or self._tally.generation_id
        return Ending(last_bytes=replace_known_model(body, answer.model, self._asked.model))

    def _note_generation(self, generation_id: str) -> None:
        """Where to ask for the cost, should this process be killed."""
        if generation_id and generation_id != self._tally.generation_id:
            self._tally.generation_id = generation_id
            if self._service.journal is not None:
                self._service.journal.note_generation(self._asked.id, generation_id)

    async def _relay_stream(self, chunks: AsyncIterator[bytes]) -> Ending | Failure:
        """Pass events on as they come; ends with the held ones that finish the answer, or with a failure."""
        relay = self._asked.dialect.open_relay(self._asked.model)
        try:
            async for chunk in chunks:
                if not self._pass_on(passed := relay.feed(chunk), relay):
                    await self._outbox.put(passed)
                if relay.is_finished or relay.error is not None:
                    break
            else:
                if not self._pass_on(passed := relay.finish(), relay):
                    await self._outbox.put(passed)
        except EventTooLarge as exc:
            return failures.transport_failure(sent=True, timed_out=False, detail=str(exc))
        finally:
            self._tally.usage = relay.usage.usage
            self._tally.generation_id = relay.usage.id or self._tally.generation_id
        if relay.is_finished:
            return Ending(last_bytes=relay.held)
        if relay.error is not None:
            failure = failures.classify_event(
                relay.error,
                now=self._service.now(),
                model=self._tally.admitted.model_sent,
                mid_stream=relay.has_started,
            )
            return dataclasses.replace(failure, billed=failure.billed or relay.has_started)
        return failures.transport_failure(sent=True, timed_out=False, detail="the stream ended before the answer did")

    def _pass_on(self, passed: bytes, relay: StreamRelay) -> bool:
        """False: `passed` has to wait, because the client is behind."""
        if relay.has_started and self._tally.first_event_ms is None:
            self._tally.note_first_event()
            self._note_generation(relay.usage.id)
            self._pass_trial()
            self._outbox.begin_stream()
        return not passed or self._outbox.offer(passed)

    def _pass_trial(self) -> None:
        """The first good event proves that the key works: the others need not wait for the end of this stream."""
        if self._tally.selection.is_trial and not self._tally.trial_passed:
            self._tally.trial_passed = True
            self._service.spawn(self._report_trial(), "pass-trial")

    async def _report_trial(self) -> None:
        try:
            await self._service.lane.submit(PassTrial(self._asked.id))
        except DatabaseAway:
            return  # the settlement says it again

    def _classify(self, response: httpx.Response, body: bytes) -> Failure:
        return failures.classify(
            response.status_code,
            response.headers,
            body,
            now=self._service.now(),
            model=self._tally.admitted.model_sent,
        )


def _transport_failure(exc: Unanswered) -> Failure:
    return failures.transport_failure(sent=not isinstance(exc, NotSent), timed_out=exc.timed_out, detail=str(exc))
