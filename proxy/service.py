"""What the calls of one web process share: the lane, the upstream, the rules, and the set of calls under way.

Made by `opensvm.asgi` when the server starts; a test makes its own with another upstream or another clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from keys.held_vault import HeldVault
from keys.journal import Journal
from keys.lane import DatabaseAway, Lane, LaneFull, LaneStopped
from keys.ledger_items import Admit, Identify, LaneResult
from proxy.call_log import Say
from proxy.cors import CorsPolicy
from proxy.errors import overloaded
from proxy.exchange import BodyBudget, BodyLimits
from proxy.retry import RetryPolicy
from proxy.upstream import Upstream
from proxy.waits import Waits

if TYPE_CHECKING:
    from proxy.call import Call

_TAIL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class CallRules:
    """Times and sizes of a call; each is a setting."""

    retry: RetryPolicy
    ping_seconds: float
    first_event_seconds: float
    settle_seconds: float
    parse_in_thread_bytes: int
    body: BodyLimits
    cors: CorsPolicy = field(default_factory=CorsPolicy)


@dataclass(slots=True)
class Service:
    lane: Lane
    upstream: Upstream
    rules: CallRules
    vault: HeldVault
    now: Callable[[], dt.datetime]
    body_budget: BodyBudget
    journal: Journal | None = None
    say: Say | None = None  # who writes the log line of each call; None: `logging`
    waits: Waits = field(default_factory=Waits)
    calls: set[Call] = field(default_factory=set)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _unwatched: set[asyncio.Task[Any]] = field(default_factory=set)
    _no_calls: asyncio.Event | None = None  # while somebody waits for the last one

    def begin_call(self, call: Call) -> None:
        self.calls.add(call)

    def end_call(self, call: Call) -> None:
        self.calls.discard(call)
        if not self.calls and self._no_calls is not None:
            self._no_calls.set()

    async def submit_new(self, item: Admit | Identify) -> LaneResult:
        """What the lane says to a request that was not begun yet. Raises a 529 `Refusal` when it can't take it."""
        try:
            return await self.lane.submit(item)
        except DatabaseAway as exc:
            raise overloaded("The service's database is not available. Try again shortly.", 5) from exc
        except (LaneFull, LaneStopped) as exc:
            raise overloaded("The service is at its limit. Try again shortly.", 2) from exc

    def spawn_unwatched(self, work: Coroutine[Any, Any, Any]) -> None:
        """A task that `wait_for_calls` does not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._unwatched.add(task)
        task.add_done_callback(self._unwatched.discard)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that someone holds: the loop itself keeps only weak references."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close_after_tail(self, response: httpx.Response, chunks: Any) -> None:
        """Read what follows the last event, the `[DONE]`, so that the connection can be used again."""
        self.spawn(_read_tail(response, chunks), "upstream-tail")

    async def wait_for_calls(self, seconds: float) -> bool:
        """Until every call has ended; False if some had not by then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.calls or self._tasks:
                    await self._wait_for_change()
        return not self.calls and not self._tasks

    async def _wait_for_change(self) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self.calls:
            self._no_calls = asyncio.Event()
            await self._no_calls.wait()


async def _read_tail(response: httpx.Response, chunks: Any) -> None:
    try:
        async with asyncio.timeout(_TAIL_SECONDS):
            async for _ in chunks:
                pass
    except Exception:  # noqa: S110 - the answer is complete; at worst the connection is not used again
        pass
    finally:
        await response.aclose()
