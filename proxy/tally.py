"""What became known of a call while it ran, and how it ended: all that its ledger row needs. No I/O."""

from __future__ import annotations

import datetime as dt
import time
from uuid import UUID

import httpx
import msgspec

from keys.causes import Cause, Failure
from keys.ledger_items import Admitted, Caller, FailedTry, Selection, Settlement, Tokens
from keys.models import CostSource
from proxy.answers import Usage
from proxy.dialects import Dialect
from proxy.errors import Refusal

CLIENT_LEFT_STATUS = 499  # nginx's number for it
_REPORTED, _UNKNOWN = CostSource.REPORTED.value, CostSource.UNKNOWN.value


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that passed the credential and body checks. `headers` are the ones that go upstream with it."""

    id: UUID
    request_id: str
    client_digest: str
    client_prefix: str
    model: str
    dialect: Dialect
    is_stream: bool
    body_bytes: int
    headers: httpx.Headers
    caller: Caller
    created_at: dt.datetime
    started: float  # time.monotonic()


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How a call ended. `failure` is None for a finished answer; `last_bytes` is what finishes it."""

    failure: Failure | None = None
    last_bytes: bytes = b""


class Tally(msgspec.Struct):
    """`payload` is the body for upstream; it is let go when the first event has ended all retries."""

    asked: Asked
    admitted: Admitted
    selection: Selection
    payload: bytes = b""
    tries: int = 0
    retries: int = 0
    keys_tried: set[UUID] = msgspec.field(default_factory=set)
    unwritten: list[FailedTry] = msgspec.field(default_factory=list)  # failed tries that no step has written yet
    usage: Usage = Usage()
    generation_id: str = ""
    first_event_ms: int | None = None
    trial_passed: bool = False
    may_be_billed: bool = False
    met_rate_limit: bool = False
    _try_started: float = 0.0

    def begin_try(self) -> None:
        self.tries += 1
        self.keys_tried.add(self.selection.key_id)
        self._try_started = time.monotonic()

    def note_failed_try(self, failure: Failure, at: dt.datetime) -> None:
        duration_ms = int((time.monotonic() - self._try_started) * 1000)
        self.may_be_billed = self.may_be_billed or failure.billed
        self.met_rate_limit = self.met_rate_limit or failure.cause is Cause.KEY_RATE_LIMITED
        self.unwritten.append(FailedTry(self.tries, self.selection, failure, duration_ms, at))

    def note_first_event(self) -> None:
        if self.first_event_ms is None:
            self.first_event_ms = self.elapsed_ms()
            self.payload = b""

    def take_unwritten(self) -> tuple[FailedTry, ...]:
        failures = tuple(self.unwritten)
        self.unwritten.clear()
        return failures

    def elapsed_ms(self) -> int:
        return int((time.monotonic() - self.asked.started) * 1000)

    def settlement(self, ending: Ending, refusal: Refusal | None, *, has_begun: bool) -> Settlement:
        """The ledger row. The cost is upstream's own word, 0 where nothing can have been billed, else unknown.

        `refusal` is what the client gets for a failure, which need not be the last key's own.
        """
        asked, failure = self.asked, ending.failure
        cost_nano, source = self._cost(failure)
        # By position: names would take longer than the rest of it.
        return Settlement(
            asked.id,
            asked.request_id,
            self.admitted.client_id,
            self.selection.key_id,
            asked.model,
            self.admitted.model_sent,
            _status(failure, refusal, has_begun=has_begun),
            _error_type(failure, refusal),
            failure.cause.value if failure else "",
            self.tries,
            asked.is_stream,
            Tokens(
                self.usage.input_tokens,
                self.usage.output_tokens,
                self.usage.cache_read_tokens,
                self.usage.cache_write_tokens,
            ),
            cost_nano,
            source,
            self.elapsed_ms(),
            self.first_event_ms,
            self.generation_id,
            asked.created_at,
            asked.caller,
            self.take_unwritten(),
            self.selection.is_trial and not self.trial_passed,  # holds_trial
            self.trial_passed or (failure is None and self.selection.is_trial),
        )

    def _cost(self, failure: Failure | None) -> tuple[int | None, str]:
        if self.usage.cost_nano is not None:
            return self.usage.cost_nano, _REPORTED
        if failure is not None and not failure.billed and not self.may_be_billed:
            return 0, _REPORTED
        return None, _UNKNOWN


def _status(failure: Failure | None, refusal: Refusal | None, *, has_begun: bool) -> int:
    """As the client saw it."""
    if failure is not None and failure.cause is Cause.CLIENT_LEFT:
        return CLIENT_LEFT_STATUS
    return 200 if refusal is None or has_begun else refusal.status


def _error_type(failure: Failure | None, refusal: Refusal | None) -> str:
    if failure is not None and failure.cause is Cause.CLIENT_LEFT:
        return failure.error_type
    return refusal.error_type if refusal else ""


def client_left(*, billed: bool) -> Failure:
    return Failure(Cause.CLIENT_LEFT, CLIENT_LEFT_STATUS, "client_left", "The client left.", billed=billed)


def interrupted(*, billed: bool) -> Failure:
    message = "The service is shutting down. Please send the request again."
    return Failure(Cause.INTERRUPTED, 529, "overloaded_error", message, billed=billed, retry_after_seconds=1.0)
