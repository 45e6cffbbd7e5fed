"""What a request may cost at most, so that no change makes it slow unseen: threads, tasks and steps of the lane.

The statements of a step are counted in `tests/integration/keys/test_statement_counts.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keys.ledger_items import LaneItem, LaneResult, Settlement
from keys.models import RequestLog
from tests.data_plane import DataPlane

ROOT = Path(__file__).resolve().parents[3]
OURS = tuple(f"{ROOT / package}{os.sep}" for package in ("opensvm", "proxy", "keys"))
BY_SERVER = "DataPlane.__call__"


class CountingLane:
    """The lane, with what it was asked to do."""

    def __init__(self, plane: DataPlane) -> None:
        self._lane = plane.service.lane
        self.is_away = False
        self.steps: Counter[str] = Counter()

    async def submit(self, item: LaneItem) -> LaneResult:
        self.steps[type(item).__name__] += 1
        return await self._lane.submit(item)

    def post(self, item: Settlement) -> asyncio.Future[LaneResult]:
        self.steps[type(item).__name__] += 1
        return self._lane.post(item)

    def stop(self, timeout_seconds: float) -> bool:
        return self._lane.stop(timeout_seconds)


@contextmanager
def counted(loop: asyncio.AbstractEventLoop) -> Iterator[Counter[str]]:
    """The tasks that our own code made, by their coroutine, and how often something was run in a thread."""
    counts: Counter[str] = Counter()
    run_in_executor: Callable[..., Any] = loop.run_in_executor

    def make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        code = getattr(work, "cr_code", None)
        if code is None or code.co_filename.startswith(OURS):  # without code: a generator that was left unread
            counts[work.__qualname__ if code else type(work).__name__] += 1
        return asyncio.Task(work, loop=loop, **options)

    def run(*arguments: Any) -> Any:
        counts["threads"] += 1
        return run_in_executor(*arguments)

    loop.set_task_factory(make_task)
    loop.run_in_executor = run  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        loop.set_task_factory(None)
        loop.run_in_executor = run_in_executor  # type: ignore[method-assign]


@pytest.mark.parametrize("is_stream", [False, True], ids=["a JSON answer", "a stream"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_a_request_takes_no_thread_no_task_and_two_steps_of_the_lane(
    plane: DataPlane, path: str, is_stream: bool
) -> None:
    plane.add_key("alpha")
    plane.post(path=path)  # the first one opens the connection to upstream
    lane = plane.service.lane = CountingLane(plane)  # type: ignore[assignment]
    with counted(plane.loop) as counts:
        assert plane.post(path=path, stream=is_stream).status == 200
        plane.wait_until(lambda: RequestLog.objects.count() == 2)
    tails = counts.pop("_read_tail", 0)
    assert tails <= is_stream  # only if upstream has ended its answer later than with the last event
    assert counts == {BY_SERVER: 1}
    assert lane.steps == {"Admit": 1, "Settlement": 1}


def test_a_local_answer_takes_no_thread_no_task_and_one_step_of_the_lane(plane: DataPlane) -> None:
    lane = plane.service.lane = CountingLane(plane)  # type: ignore[assignment]
    with counted(plane.loop) as counts:
        assert plane.post(path="/v1/messages/count_tokens").status == 200
    assert counts == {BY_SERVER: 1}
    assert lane.steps == {"Identify": 1}
