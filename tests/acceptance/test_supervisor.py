"""The supervisor with real processes that do next to nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opensvm.serve.addresses import Address, answers
from opensvm.serve.children import LAUNCHER, ChildSpec
from opensvm.serve.errors import ChildFailed
from opensvm.serve.supervisor import Supervisor
from tests.acceptance.service import Service, is_running, wait_until

ROOT = Path(__file__).resolve().parents[2]


def test_a_process_that_ends_at_once_stops_the_group_with_its_message(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(ChildFailed, match="The broken process ended with exit code 1") as caught:
        _run([_spec("record", str(pids)), _spec("fail", role="broken")], _wait_for_ever)
    assert "no such thing as a free lunch" in caught.value.output
    assert not any(is_running(pid) for pid in _pids(pids))


def test_a_process_that_ends_later_is_started_again_within_a_second(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def kill_and_wait() -> None:
        await _until(lambda: len(_pids(pids)) == 1)
        os.kill(_pids(pids)[0], signal.SIGKILL)
        started = time.monotonic()
        await _until(lambda: len(_pids(pids)) == 2)
        assert time.monotonic() - started < 1.5  # a second, and Python's own start
        _end_ourselves()

    _run([_spec("record", str(pids))], kill_and_wait, first_seconds=0.0)


def test_the_others_go_on_while_one_is_started_again(tmp_path: Path) -> None:
    dying, steady = tmp_path / "dying", tmp_path / "steady"

    async def kill_one() -> None:
        await _until(lambda: len(_pids(dying)) == 1 and len(_pids(steady)) == 1)
        os.kill(_pids(dying)[0], signal.SIGKILL)
        await _until(lambda: len(_pids(dying)) == 2)
        assert is_running(_pids(steady)[0])
        _end_ourselves()

    _run([_spec("record", str(dying)), _spec("record", str(steady))], kill_one, first_seconds=0.0)
    assert len(_pids(steady)) == 1


def test_a_process_that_ignores_sigterm_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def stop_when_it_runs() -> None:
        await _until(pid_file.exists)
        _end_ourselves()

    started = time.monotonic()
    _run([_spec("ignore_signals", str(pid_file))], stop_when_it_runs, drain_seconds=-6.5)
    assert time.monotonic() - started < 10
    assert not is_running(int(pid_file.read_text()))


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def stop_twice() -> None:
        await _until(pid_file.exists)
        _end_ourselves()
        asyncio.get_running_loop().call_later(0.2, _end_ourselves)

    started = time.monotonic()
    _run([_spec("ignore_signals", str(pid_file))], stop_twice, drain_seconds=60.0)
    assert time.monotonic() - started < 10


def test_plain_words_of_a_process_become_log_lines(
    capfdbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def stop_when_heard() -> None:
        await _until(lambda: "plain words" in caplog.messages)
        await asyncio.sleep(0.1)
        _end_ourselves()

    with caplog.at_level(logging.INFO, "opensvm.serve"):
        _run([_spec("speak")], stop_when_heard)
    assert b'{"a": "log line"}\n' in capfdbinary.readouterr().out
    assert '{"a": "log line"}' not in caplog.messages


def test_a_hanging_web_worker_ends_soon_after_its_server_was_killed(tmp_path: Path) -> None:
    variables = {"OPENSVM_DRAIN": "0", "OPENSVM_WORKERS": "1"}
    program = (
        sys.executable,
        str(LAUNCHER),
        str(os.getpid()),
        "opensvm.serve.web",
        "tests.acceptance.hanging_app:application",
    )
    server = Service(tmp_path, {**variables, "DJANGO_SETTINGS_MODULE": "opensvm.settings"}, program=program).launch()
    wait_until(lambda: _answers_now(Address("127.0.0.1", server.port)))
    (worker,) = server.descendants()
    server.kill()
    assert is_running(worker)
    wait_until(lambda: not is_running(worker))


def _answers_now(address: Address) -> bool:
    return asyncio.run(answers(address, "/"))


def _spec(what: str, *arguments: str, role: str = "test") -> ChildSpec:
    return ChildSpec(role, "tests.acceptance.processes", (what, *arguments))


def _run(
    specs: list[ChildSpec],
    when_up: Callable[[], Awaitable[None]],
    *,
    drain_seconds: float = 5.0,
    first_seconds: float = 5.0,
) -> None:
    supervisor = Supervisor(
        specs, environment=os.environ, folder=ROOT, drain_seconds=drain_seconds, first_seconds=first_seconds
    )
    with _signals_as_before():
        asyncio.run(supervisor.run(when_up))


@contextmanager
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _end_ourselves() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


async def _until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


def _pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []
