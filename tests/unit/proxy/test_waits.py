"""Many waits under one timer: each runs out in its time, or is ended before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.waits import NO_WAIT, Limit, Waits


@dataclass
class Clockwork:
    """As much of an event loop as a limit asks for, with a clock that stands still until `advance`."""

    now: float = 100.0
    timers: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        self.timers.append((self.now + seconds, callback, args))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.faults.append(context["exception"])

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[1](*first[2])
        self.now = end

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)


def test_a_wait_that_is_not_ended_runs_out_once() -> None:
    clock, limit, late = Clockwork(), Limit(5.0), list[str]()
    limit.begin(clock.loop, lambda: late.append("alice"))
    clock.advance(4.9)
    assert late == []
    clock.advance(0.2)
    assert late == ["alice"]
    clock.advance(60.0)
    assert late == ["alice"]
    assert clock.timers == []


def test_a_wait_that_was_ended_never_runs_out() -> None:
    clock, limit, late = Clockwork(), Limit(5.0), list[str]()
    limit.end(limit.begin(clock.loop, lambda: late.append("alice")))
    clock.advance(60.0)
    assert late == []


def test_ending_what_is_over_or_was_never_begun_is_no_fault() -> None:
    clock, limit = Clockwork(), Limit(5.0)
    wait = limit.begin(clock.loop, lambda: None)
    clock.advance(6.0)
    limit.end(wait)
    limit.end(wait)
    limit.end(NO_WAIT)


def test_one_timer_serves_all_who_wait() -> None:
    clock, limit = Clockwork(), Limit(5.0)
    for _ in range(1000):
        limit.begin(clock.loop, lambda: None)
        clock.advance(0.001)
    assert len(clock.timers) == 1


def test_one_may_end_another_that_is_late_too() -> None:
    clock, limit, late = Clockwork(), Limit(5.0), list[str]()
    limit.begin(clock.loop, lambda: limit.end(second))
    second = limit.begin(clock.loop, lambda: late.append("bob"))
    clock.advance(6.0)
    assert late == []


def test_a_fault_in_one_is_told_and_the_others_run() -> None:
    clock, limit, late = Clockwork(), Limit(5.0), list[str]()
    limit.begin(clock.loop, lambda: 1 / 0)
    limit.begin(clock.loop, lambda: late.append("bob"))
    clock.advance(6.0)
    assert late == ["bob"]
    assert [type(fault) for fault in clock.faults] == [ZeroDivisionError]


def test_a_new_loop_begins_anew() -> None:
    first, second, limit, late = Clockwork(), Clockwork(), Limit(5.0), list[str]()
    limit.begin(first.loop, lambda: late.append("of the loop that has ended"))
    limit.begin(second.loop, lambda: late.append("bob"))
    second.advance(6.0)
    assert late == ["bob"]


def test_there_is_one_limit_for_each_length() -> None:
    waits = Waits()
    assert waits[5.0] is waits[5.0]
    assert waits[5.0] is not waits[0.25]


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_a_real_loop_calls_back(seconds: float) -> None:
    async def run() -> None:
        left = asyncio.get_running_loop().create_future()
        Limit(seconds).begin(asyncio.get_running_loop(), lambda: left.set_result(None))
        await asyncio.wait_for(left, 5.0)

    asyncio.run(run())


STEPS = st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=40)


@given(steps=STEPS)
def test_each_runs_out_in_its_time_whoever_else_waits(steps: list[tuple[float, bool]]) -> None:
    """Of waits that begin after any pauses, those that nobody ends run out `seconds` later, to the clock's step."""
    clock, limit, expected, late = Clockwork(), Limit(2.0), list[float](), list[float]()
    for pause, is_ended in steps:
        clock.advance(pause)
        wait = limit.begin(clock.loop, lambda: late.append(clock.now))
        if is_ended:
            limit.end(wait)
        else:
            expected.append(clock.now + 2.0)
    clock.advance(10.0)
    assert late == pytest.approx(expected, abs=0.0021)
    assert clock.timers == []
