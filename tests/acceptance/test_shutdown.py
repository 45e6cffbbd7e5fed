"""How the service ends and is renewed: open answers get their time, what is left says so, and everything is settled."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.crash.database import Database
from tests.acceptance.crash.killer import children, wait_for_answers
from tests.acceptance.crash.ledgers import compare
from tests.acceptance.crash.load import Load, Received
from tests.acceptance.service import Service, is_running, wait_until
from tests.sandbox import SandboxFixture

KEYS = ("sk-or-v1-test-alpha1", "sk-or-v1-test-beta22", "sk-or-v1-test-gamma3")
STREAMS = 60
CLIENTS = 4
SHORT_MODEL, LONG_MODEL = "anthropic/claude-sonnet-4.5", "anthropic/claude-opus-4.5"
DRAIN_SECONDS = 2
RENEWED_SECONDS = 60.0


@pytest.fixture
def pool(tmp_path: Path, sandbox: SandboxFixture, database_url: str) -> Iterator[Service]:
    """Two web processes and three keys; short answers take a second, long ones half a minute."""
    for key in KEYS:
        sandbox.add_key(key)
    sandbox.behave(model=LONG_MODEL, deltas=300, delay_between=0.1)
    sandbox.behave(deltas=10, delay_between=0.1)
    variables = {
        "DATABASE_URL": database_url,
        "OPENROUTER_BASE_URL": sandbox.base_url,
        "OPENROUTER_API_KEYS": ",".join(KEYS),
        "OPENSVM_WORKERS": "2",
        "OPENSVM_DRAIN": str(DRAIN_SECONDS),
    }
    with Service(tmp_path, variables) as service:
        yield service


@pytest.mark.each_database
def test_at_sigterm_streams_end_whole_or_with_an_error_and_none_is_cut(pool: Service, sandbox: SandboxFixture) -> None:
    database = Database(pool.var_dir, pool.environment["DATABASE_URL"])
    with _open_streams(pool, [SHORT_MODEL, LONG_MODEL] * (STREAMS // 2)) as received:
        wait_until(lambda: len(sandbox.requests()) == STREAMS and database.in_flight() == STREAMS, 30.0)
        time.sleep(0.3)
        started = time.monotonic()
        assert pool.stop() == 0
        assert time.monotonic() - started < DRAIN_SECONDS + 10
    assert Counter(answer.outcome for answer in received) == {"whole": STREAMS // 2, "error event": STREAMS // 2}
    found = compare(received, sandbox.ledger(), database.rows())
    found.unknown_with_id.clear()  # of those that were ended: asked for at the next start
    assert found.wrong == {}
    assert found.rows == STREAMS
    assert database.in_flight() == 0
    assert _journals(pool) == []


@pytest.mark.each_database
def test_at_sighup_the_web_processes_are_replaced_and_no_request_is_lost(
    pool: Service, sandbox: SandboxFixture
) -> None:
    """Each on a connection of its own: one that is kept open may always be closed as the next request is sent.

    One that was just made may be too, before anything of its request is read: it is as if it had not been made.
    """
    sandbox.clear_rules()
    sandbox.behave(deltas=5, delay_between=0.05)
    before = set(children(pool.child_pid("web")))
    with Load(pool.url, pool.client_key(), clients=CLIENTS, seed=1, leaving=0.0, keep_alive=False) as load:
        wait_for_answers(load, 10)
        pool.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: len(_web_processes(pool) - before) == 2 and not _web_processes(pool) & before, RENEWED_SECONDS
        )
        wait_for_answers(load, 10)
    assert len(before) == 2
    unread = [answer for answer in load.received if answer.was_cut and answer.status is None]
    assert len(unread) <= len(before) * CLIENTS
    assert [answer for answer in load.received if not answer.is_whole and answer not in unread] == []
    database = Database(pool.var_dir, pool.environment["DATABASE_URL"])
    found = compare(load.received, sandbox.ledger(), database.rows())
    assert found.wrong == {}
    assert found.rows == found.whole == len(sandbox.requests()), "those unread have left no trace"


@pytest.mark.each_database
def test_a_killed_serve_leaves_no_orphan_and_the_next_start_settles_what_was_open(
    tmp_path: Path, pool: Service, sandbox: SandboxFixture
) -> None:
    database = Database(pool.var_dir, pool.environment["DATABASE_URL"])
    below = pool.descendants()
    with _open_streams(pool, [LONG_MODEL] * 6) as received:
        wait_until(lambda: len(sandbox.requests()) == 6, 30.0)
        time.sleep(0.5)  # they have begun
        for pid in [*below, pool.process.pid]:
            os.kill(pid, signal.SIGSTOP)  # so that none of them ends in an orderly way
        pool.kill()
        for pid in below:
            os.kill(pid, signal.SIGKILL if pid in children(pool.child_pid("web")) else signal.SIGCONT)
        wait_until(lambda: not [pid for pid in below if is_running(pid)], 30.0)
    assert Counter(answer.outcome for answer in received) == {"cut": 6}
    assert database.in_flight() + len(database.rows()) == 6  # one that is on its way out may have settled some
    with Service(tmp_path, dict(pool.environment) | {"OPENSVM_PORT": str(pool.port)}):
        wait_until(lambda: database.in_flight() == 0, 20.0)
        wait_until(lambda: database.unknown_costs() == 0, 30.0)
    assert compare(received, sandbox.ledger(), database.rows()).wrong == {}
    assert _journals(pool) == []


def test_a_service_that_stops_without_its_database_keeps_its_journal_for_the_next_start(
    tmp_path: Path, pool: Service, sandbox: SandboxFixture
) -> None:
    if pool.environment["DATABASE_URL"]:
        pytest.skip("SQLite is the one that can be locked from here")
    database = Database(pool.var_dir, "")
    with _open_streams(pool, [SHORT_MODEL] * 6) as received:
        wait_until(lambda: database.in_flight() == 6, 30.0)
        with closing(sqlite3.connect(pool.var_dir / "opensvm.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            wait_until(lambda: len(sandbox.ledger()) == 6 and all(bill.finished for bill in sandbox.ledger()), 30.0)
            assert pool.stop() == 0
    assert Counter(answer.outcome for answer in received) == {"whole": 6}
    assert database.rows() == []
    left = _journals(pool)
    assert left != []
    with Service(tmp_path, dict(pool.environment)):
        wait_until(lambda: len(database.rows()) == 6 and database.in_flight() == 0, 20.0)
        wait_until(lambda: not set(left) & set(_journals(pool)), 20.0)  # they go when what they hold is in the ledger
    assert compare(received, sandbox.ledger(), database.rows()).wrong == {}
    assert _journals(pool) == []


@contextmanager
def _open_streams(service: Service, models: Sequence[str]) -> Iterator[list[Received]]:
    """One stream for each model, all at once; what came of them is whole after the block."""
    received: list[Received] = []
    load = Load(service.url, service.client_key(), clients=0, seed=0)

    def run() -> None:
        received.extend(asyncio.run(load.ask_once(models)))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield received
    thread.join(30.0)
    assert not thread.is_alive(), "a client still waits"


def _web_processes(service: Service) -> set[int]:
    return set(children(service.child_pid("web")))


def _journals(service: Service) -> list[Path]:
    """Those that hold something; a process that is ended while it starts leaves an empty one."""
    return [path for path in (service.var_dir / "journal").iterdir() if path.stat().st_size]
