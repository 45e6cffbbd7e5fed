"""What the lane takes and what it gives back: the steps of a request as frozen values.

`Admit` answers `Admitted`, `Denied` or `NoKey`; `Identify` answers `Known` or `Denied`; `Switch` answers `Selection` or
`NoKey`; `Settlement` and `PassTrial` answer None. They cross from the asyncio side to the lane's thread, so they hold
no model instances. What each request makes is a `msgspec.Struct`: given its values by position, it costs a tenth of a
frozen dataclass; it holds no cycles, so the garbage collector need not know of it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

import msgspec

from keys.causes import Failure


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who sent a request, for its ledger row. Any bytes may be in these texts; the lane cleans and cuts them."""

    client_ip: str = ""
    user_agent: str = ""
    session_id: str = ""


class Admit(msgspec.Struct, frozen=True, gc=False):
    id: UUID
    request_id: str
    client_digest: str
    model_asked: str
    stream: bool
    created_at: dt.datetime
    caller: Caller = Caller()


class Selection(msgspec.Struct, frozen=True, gc=False):
    """The key that a try uses. `secret` is still sealed; `turn` is its place in the round robin."""

    key_id: UUID
    account_id: UUID | None
    name: str
    tail: str
    secret: bytes
    turn: int
    is_trial: bool


class Admitted(msgspec.Struct, frozen=True, gc=False):
    client_id: UUID
    client_name: str
    model_sent: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class Denied:
    """The client key opens nothing: `reason` is for the log alone (unknown, revoked, expired, scope)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Identify:
    """Is this a client that may send messages? Reads only: no key is selected and no row is written."""

    id: UUID
    client_digest: str
    model_asked: str = ""  # its upstream name is told
    wants_models: bool = False


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A name that clients may ask for: an alias, or a model of the catalogue. What is None is not known."""

    id: str
    target: str  # the upstream model that is meant; of a model of the catalogue, its own id
    name: str
    context_length: int | None
    max_output: int | None
    created: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Known:
    """`models`: aliases first, then the catalogue with the newest first; empty unless they were asked for."""

    client_id: UUID
    client_name: str
    model_sent: str = ""
    models: tuple[OfferedModel, ...] = ()


@dataclass(frozen=True, slots=True)
class NoKey:
    """No key is free. `benched` counts keys by cause, for the log; clients are told none of it."""

    client_id: UUID | None
    pool_size: int
    benched: dict[str, int]
    is_rate_limited: bool
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class FailedTry:
    n: int
    selection: Selection
    failure: Failure
    duration_ms: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Switch:
    """Write `failures`, move the request to a key that is not in `tried`. One commit, before that key is asked."""

    id: UUID
    model_sent: str
    client_id: UUID
    tried: frozenset[UUID]
    failures: tuple[FailedTry, ...]


@dataclass(frozen=True, slots=True)
class PassTrial:
    """The first good upstream event of a trial has come: the cause is gone."""

    id: UUID


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """As Anthropic counts: `input` is without cache reads and writes."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a request: its ledger row, and what its last failures and its trial came to."""

    id: UUID
    request_id: str
    client_id: UUID
    key_id: UUID | None
    model_asked: str
    model_sent: str
    status: int
    error_type: str
    cause: str
    attempts: int
    stream: bool
    tokens: Tokens
    cost_nano: int | None
    cost_source: str
    latency_ms: int
    first_token_ms: int | None
    generation_id: str
    created_at: dt.datetime
    caller: Caller
    failures: tuple[FailedTry, ...] = ()
    holds_trial: bool = False  # its last selection was a trial that has not been passed yet
    trial_passed: bool = False


Begun = Switch | PassTrial | Settlement  # what becomes of a request that was admitted
LaneItem = Admit | Identify | Begun
LaneResult = Admitted | Known | Denied | NoKey | Selection | None
