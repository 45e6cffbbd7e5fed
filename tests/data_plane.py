"""The whole data plane in this process: the real application, lane and database, with the sandbox as upstream.

A test is plain synchronous code; the application runs in a loop of its own thread. `Client` speaks ASGI to it, so that
a test decides when a client reads, stalls and leaves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.utils import timezone

from keys.causes import BenchPolicy, Failure
from keys.held_vault import HeldVault
from keys.lane import Lane
from keys.lane_watch import Patience
from keys.models import Cooldown, InFlight, OpenRouterKey, RequestLog
from keys.sealing import Sealed
from keys.services.audit import Actor
from keys.services.clients import create_client
from keys.services.keys import add_key
from keys.steps.batch import BatchRules
from opensvm.asgi import Application
from opensvm.wiring import call_rules, upstream_config
from proxy.exchange import BodyBudget
from proxy.retry import RetryPolicy
from proxy.service import Service
from proxy.upstream import Upstream
from tests.asgi import Taken
from tests.sandbox import SandboxFixture

T = TypeVar("T")
ALICE = Actor("alice")
PATIENCE = Patience(admit_seconds=15.0)  # a busy machine's disk is no outage; what one is has tests of its own
MESSAGE = {
    "model": "anthropic/claude-sonnet-4.5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}


@dataclass(slots=True)
class Clock:
    """The lane's and the calls' clock; a test moves it."""

    ahead: dt.timedelta = dt.timedelta()
    stopped_at: dt.datetime | None = None

    def __call__(self) -> dt.datetime:
        return (self.stopped_at or timezone.now()) + self.ahead

    def stop(self) -> None:
        """From now on time passes only by `forward`: for what a slow machine would see the end of."""
        self.stopped_at = timezone.now()

    def forward(self, seconds: float) -> None:
        self.ahead += dt.timedelta(seconds=seconds)


@dataclass(frozen=True)
class NotedRetries(RetryPolicy):
    """Tells a test that a try has failed and that the pause before the next has begun."""

    paused: threading.Event = field(default_factory=threading.Event)

    def pause_seconds(self, failure: Failure, *, retries: int, jitter: Callable[[], float]) -> float:
        self.paused.set()
        return super().pause_seconds(failure, retries=retries, jitter=jitter)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = self.json()["error"]
        return found

    @property
    def events(self) -> list[tuple[str, Any]]:
        """(event name, payload) of a stream; comments are left out."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if "event" in lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found


@dataclass(slots=True)
class OpenCall:
    """A request under way, seen by its client."""

    plane: DataPlane
    sent: asyncio.Queue[dict[str, Any]]
    received: list[dict[str, Any]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for_bytes(self, marker: bytes, seconds: float = 10.0) -> None:
        """Until the client has received `marker`."""
        self._wait(lambda: marker in self.body, seconds, f"{marker!r}")

    def leave(self) -> None:
        self.plane.call_soon(lambda: self.sent.put_nowait({"type": "http.disconnect"}))

    def send_body(self, chunk: bytes, *, more: bool) -> None:
        self.plane.call_soon(lambda: self.sent.put_nowait({"type": "http.request", "body": chunk, "more_body": more}))

    def reply(self, seconds: float = 20.0) -> Reply:
        self._wait(lambda: self.is_over, seconds, "the end")
        start = next(m for m in self.received if m["type"] == "http.response.start")
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], headers, self.body)

    @property
    def is_over(self) -> bool:
        return any(m["type"] == "http.response.body" and not m.get("more_body") for m in self.received)

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.received if m["type"] == "http.response.body")

    def _wait(self, is_true: Callable[[], bool], seconds: float, what: str) -> None:
        with self.arrived:
            if not self.arrived.wait_for(is_true, seconds):
                raise AssertionError(f"{what} did not come within {seconds} s; received {self.received[-3:]}")


class DataPlane:
    """The running application and its pool."""

    def __init__(self, sandbox: SandboxFixture, changes: dict[str, Any]) -> None:
        self.sandbox = sandbox
        self.clock = Clock()
        self.application = Application()
        self._changes = changes
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="plane", daemon=True)
        self.client_key, self.client = create_client(actor=ALICE, name="bob")

    # -- life --------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self._thread.start()
        self.run(self._start())

    async def _start(self) -> None:
        self.application.start(self._build_service())

    def _build_service(self) -> Service:
        fields = {field.name for field in dataclasses.fields(call_rules())}
        rules = {name: value for name, value in self._changes.items() if name in fields}
        config = dataclasses.replace(
            upstream_config(),
            base_url=self.sandbox.base_url,
            silence_seconds=self._changes.get("silence_seconds", 10.0),
        )
        return Service(
            lane=self._build_lane(),
            upstream=Upstream(config),
            rules=dataclasses.replace(call_rules(), **rules),
            vault=HeldVault(),
            now=self.clock,
            body_budget=BodyBudget(self._changes.get("bodies_bytes", 256 * 1024 * 1024)),
        )

    def _build_lane(self) -> Lane:
        rules = BatchRules(uuid.uuid4(), self._changes.get("policy", BenchPolicy()), trial_seconds=60.0)
        return Lane(rules, clock=self.clock, patience=PATIENCE)

    def stop(self) -> None:
        self.run(self.application.stop())
        self.run(self._end_requests())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 30.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def call_soon(self, action: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(action)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where the application runs."""
        return self._loop

    @property
    def service(self) -> Service:
        assert self.application.service is not None
        return self.application.service

    # -- the pool ----------------------------------------------------------------------------------------------------
    def add_keys(self, *names: str, **fields: Any) -> list[OpenRouterKey]:
        """The same key in the sandbox and in the pool, for each name; `account` names its account in both."""
        return [self.add_key(name, **fields) for name in names]

    def add_key(self, name: str, **fields: Any) -> OpenRouterKey:
        text = f"sk-or-v1-test-{name}-{uuid.uuid4().hex[:8]}"
        account = fields.get("account")
        self.sandbox.add_key(text, name=name, **({"account": account.name} if account else {}))
        return add_key(actor=ALICE, secret=Sealed(text), name=name, **fields)

    # -- requests ----------------------------------------------------------------------------------------------------
    def open(
        self,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        method: str = "POST",
        path: str = "/v1/messages",
        query: bytes = b"",
        raw: bytes | None = None,
        send: bool = True,
        **changes: Any,
    ) -> OpenCall:
        """Begin a request; `changes` replace fields of the usual body, `raw` is a body as it stands."""
        content = raw if raw is not None else json.dumps({**(body or MESSAGE), **changes}).encode()
        call = OpenCall(self, asyncio.Queue())
        self.run(self._open(call, self._scope(method, path, query, headers)))
        if send:
            call.send_body(content, more=False)
        return call

    def post(self, body: Any = None, **options: Any) -> Reply:
        return self.open(body, **options).reply()

    def stream(self, **options: Any) -> Reply:
        return self.post(stream=True, **options)

    def _scope(self, method: str, path: str, query: bytes, headers: dict[str, str] | None) -> dict[str, Any]:
        sent = {"host": "test", "x-api-key": self.client_key, "content-type": "application/json", **(headers or {})}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode("utf-8", "surrogateescape")) for k, v in sent.items() if v],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }

    async def _open(self, call: OpenCall, scope: dict[str, Any]) -> None:
        def send(message: Any) -> Taken:
            with call.arrived:
                call.received.append(dict(message))
                call.arrived.notify_all()
            return Taken()

        call.task = asyncio.get_running_loop().create_task(self.application(scope, call.sent.get, send))
        self._tasks.append(call.task)

    async def _end_requests(self) -> None:
        """A loop that stops with a request under way complains of it in whatever test comes next."""
        open_requests = {task for task in self._tasks if not task.done()}
        if open_requests:
            _, late = await asyncio.wait(open_requests, timeout=2)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=5)

    # -- the ledger --------------------------------------------------------------------------------------------------
    def rows(self) -> list[RequestLog]:
        return list(RequestLog.objects.order_by("id"))

    def only_row(self, seconds: float = 5.0) -> RequestLog:
        """The one row there is, once it is there."""
        self.wait_until(lambda: RequestLog.objects.exists() and not InFlight.objects.exists(), seconds)
        (row,) = self.rows()
        return row

    def open_cooldowns(self) -> list[Cooldown]:
        return list(Cooldown.objects.filter(cleared_at__isnull=True).order_by("id"))

    def asked_keys(self) -> list[str]:
        """The names of the keys that upstream saw, in order."""
        return [request.key_name for request in self.sandbox.requests()]

    def wait_until(self, is_true: Callable[[], bool], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not is_true():
            assert time.monotonic() < deadline, "it did not become true in time"
            time.sleep(0.005)
