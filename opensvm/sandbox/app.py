"""The sandbox itself: takes a request, gives back the whole reply as data. It does no I/O; `connection` does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from opensvm.sandbox import chat, control, management
from opensvm.sandbox.cache import PromptCache
from opensvm.sandbox.catalogue import MODELS, find_model
from opensvm.sandbox.errors import Circumstances, Failed, make_failure
from opensvm.sandbox.keys import KeyBook, SandboxKey, key_facts
from opensvm.sandbox.ledger import Ledger
from opensvm.sandbox.messages import (
    DEFAULT_MAX_TOKENS,
    Order,
    answer_order,
    find_fault,
    find_shortage,
    generation_record,
)
from opensvm.sandbox.received import Inbox, Received
from opensvm.sandbox.reply import Reply, behave, failure_reply, json_reply, raw_reply
from opensvm.sandbox.script import Behaviour, Break, Call, Script

BASE = "/api/v1"


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(slots=True)
class Config:
    """How the sandbox behaves where no rule says otherwise."""

    cancellable: bool = True  # whether the provider stops, and bills only so far, when the client leaves a stream
    generation_delay_seconds: float = 0.0  # so long after its end a generation is not found by GET /generation
    idle_seconds: float | None = None  # an idle connection is closed after so long


@dataclass(slots=True)
class ConnectionFaults:
    """The next `times` connections end `how` at their first byte, or before it ("accept")."""

    times: int = 0
    how: Break = "close"
    at: Literal["first_byte", "accept"] = "first_byte"

    def take(self, at: str) -> Break | None:
        if self.times <= 0 or at != self.at:
            return None
        self.times -= 1
        return self.how


@dataclass(slots=True)
class Sandbox:
    """All state in one place. It lives in one thread: that of the event loop which serves it."""

    keys: KeyBook = field(default_factory=KeyBook)
    ledger: Ledger = field(default_factory=Ledger)
    script: Script = field(default_factory=Script)
    inbox: Inbox = field(default_factory=Inbox)
    cache: PromptCache = field(default_factory=PromptCache)
    config: Config = field(default_factory=Config)
    faults: ConnectionFaults = field(default_factory=ConnectionFaults)
    now: Callable[[], dt.datetime] = utc_now

    def reset(self, *, keys: bool = True) -> None:
        """Forgets everything but the clock, the keys only when asked."""
        fresh = Sandbox(now=self.now)
        if keys:
            self.keys = fresh.keys
        for name in ("ledger", "script", "inbox", "cache", "config", "faults"):
            setattr(self, name, getattr(fresh, name))

    def answer(self, received: Received) -> Reply:
        """The reply to a request whose body is read. Requests under /sandbox are not recorded."""
        if control.is_control(received.path):
            return control.answer(self, received)
        received.parse_body()
        received.key = self.keys.find(received.secret)
        self.inbox.add(received)
        behaviour = self.script.behaviour_for(_call(received))
        reply = behave(self._reply(received, behaviour), behaviour)
        if reply.meter is not None:
            received.generation_id = reply.meter.generation.id
        return reply

    def _reply(self, received: Received, behaviour: Behaviour) -> Reply:
        if behaviour.replaces_answer:
            return self._replacement(received, behaviour)
        endpoint = received.path.removeprefix(BASE)
        public = _PUBLIC.get((received.method, endpoint))
        if public is not None:
            return public(self, received)
        key = received.key
        if key is None:
            return self._refuse("refused" if received.secret else "no_credentials", received)
        if refusal := key.refusal(self.now()):
            return self._refuse(refusal, received)
        if (received.method, endpoint) in _INFERENCE:
            return self._infer(received, key, behaviour)
        private = _PRIVATE.get((received.method, endpoint))
        if private is not None:
            return private(self, received, key)
        if endpoint == "/keys" or endpoint.startswith("/keys/"):
            return management.answer(self, received, key)
        return failure_reply(
            Failed(404, f"Not Found: the OpenSVM Sandbox has no {received.method} {received.path}", "B")
        )

    def _replacement(self, received: Received, behaviour: Behaviour) -> Reply:
        raw = behaviour.raw_body
        if raw is not None:
            return raw_reply(raw, behaviour)
        if not behaviour.error:
            return failure_reply(Failed(behaviour.status or 500, "Scripted by the OpenSVM Sandbox"))
        failed = make_failure(behaviour.error, self._circumstances(received))
        if behaviour.retry_after is not None:
            failed = failed.with_hint(behaviour.retry_after, behaviour.hint_in)
        if behaviour.status is not None:
            failed = replace(failed, status=behaviour.status)
        return self._fail(failed, received)

    def _refuse(self, name: str, received: Received) -> Reply:
        return self._fail(make_failure(name, self._circumstances(received)), received)

    def _fail(self, failed: Failed, received: Received) -> Reply:
        return failure_reply(chat.as_shape_b(failed) if _is_chat(received) else failed)

    def _circumstances(self, received: Received) -> Circumstances:
        body = received.body if isinstance(received.body, dict) else {}
        return Circumstances(
            now=self.now(),
            key_hash=received.key.hash if received.key else "0" * 64,
            max_tokens=chat.max_tokens_of(body) or 0,
            model=str(body.get("model", "")),
        )

    # -- Endpoints -----------------------------------------------------------------------------------------------------

    def _infer(self, received: Received, key: SandboxKey, behaviour: Behaviour) -> Reply:
        if key.is_management:
            return failure_reply(Failed(403, "Management keys can't be used for inference.", "B"))
        limit = key.rate_limit
        if limit is not None and not limit.allows(self.now().timestamp()):
            failed = make_failure("rate_limited", self._circumstances(received))
            hinted = failed if limit.retry_after is None else failed.with_hint(limit.retry_after, "header")
            return self._fail(hinted, received)
        body, is_chat = received.body, _is_chat(received)
        if fault := chat.find_fault(body) if is_chat else find_fault(body):
            return self._fail(Failed(400, fault), received)
        body = chat.as_messages(body) if is_chat else body
        model = find_model(body["model"])
        if model is None:
            return self._refuse("bad_model", received)
        max_tokens = body.get("max_tokens") or DEFAULT_MAX_TOKENS
        if shortage := find_shortage(key, self.ledger, model, max_tokens, self.now()):
            return self._refuse(shortage, received)
        order = Order(body, received.headers, key, model, behaviour, self.now(), self.config.cancellable)
        answer = chat.answer_order if is_chat else answer_order
        return answer(order, self.ledger, self.cache)

    def _key(self, _: Received, key: SandboxKey) -> Reply:
        return json_reply({"data": key_facts(key, self.ledger, self.now().date())})

    def _models(self, received: Received) -> Reply:
        records = [model.record() for model in MODELS.values()]
        offset = _number(received.query.get("offset"), 0)
        limit = _number(received.query.get("limit"), 1000)
        page = records[offset : offset + limit]
        more = offset + limit < len(records)
        following = f"{BASE}/models?offset={offset + limit}&limit={limit}" if more else None
        return json_reply({"data": page, "total_count": len(records), "links": {"next": following}})

    def _generation(self, received: Received, key: SandboxKey) -> Reply:
        """Found only when it has ended, is old enough, and belongs to the account of the key that asks."""
        generation_id = received.query.get("id", "")
        found = self.ledger.find(generation_id)
        delay = dt.timedelta(seconds=self.config.generation_delay_seconds)
        ripe = found is not None and found.settled_at is not None and found.settled_at + delay <= self.now()
        if found is None or not ripe or found.account != key.account.name:
            return failure_reply(Failed(404, f"Generation {generation_id} not found", "B"))
        return json_reply({"data": generation_record(found)})

    def _credits(self, _: Received, key: SandboxKey) -> Reply:
        return management.show_credits(self, key)


_INFERENCE = frozenset({("POST", "/messages"), ("POST", chat.PATH)})
_PUBLIC: dict[tuple[str, str], Callable[[Sandbox, Received], Reply]] = {("GET", "/models"): Sandbox._models}
_PRIVATE: dict[tuple[str, str], Callable[[Sandbox, Received, SandboxKey], Reply]] = {
    ("GET", "/key"): Sandbox._key,
    ("GET", "/generation"): Sandbox._generation,
    ("GET", "/credits"): Sandbox._credits,
}


def _is_chat(received: Received) -> bool:
    return received.path.removeprefix(BASE) == chat.PATH


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else default


def _call(received: Received) -> Call:
    body: dict[str, Any] = received.body if isinstance(received.body, dict) else {}
    names = received.key.names if received.key else frozenset({received.secret})
    return Call(
        path=received.path.removeprefix(BASE),
        method=received.method,
        key_names=names,
        model=str(body.get("model", "")),
        streamed=body.get("stream") is True,
    )
