"""The crash loop: processes are killed at random under load, then three ledgers must agree.

A long run: `pytest tests/acceptance/test_crash_loop.py --kills 200 --seed 7`. `bin/test` kills 10 on each database.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from opensvm.sandbox.remote import Controls
from tests.acceptance.crash.database import Database
from tests.acceptance.crash.killer import Killer, answers
from tests.acceptance.crash.ledgers import Comparison, compare
from tests.acceptance.crash.load import MODEL, Load
from tests.acceptance.crash.report import figures, table
from tests.acceptance.service import ROOT, TIME_SCALE, Service, wait_until
from tests.postgres import Postgres, postgres_server

KEYS = ("sk-or-v1-test-alpha1", "sk-or-v1-test-beta22", "sk-or-v1-test-gamma3")
CLIENTS = 12
WEB_PROCESSES = "2"
IN_FLIGHT_SECONDS = 60 * float(TIME_SCALE) + 10  # and the start of a process, which no setting shortens
SETTLED_SECONDS = 60.0
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Scene:
    """A running service with its upstream and its database."""

    service: Service
    upstream: Controls
    database: Database
    postgres: Postgres | None
    client_key: str


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_no_kill_costs_a_row_or_a_nano_dollar(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    kills, seed = request.config.getoption("--kills"), request.config.getoption("--seed")
    with _scene(tmp_path, engine) as scene:
        _script(scene.upstream)
        started = time.monotonic()
        with Load(scene.service.url, scene.client_key, clients=CLIENTS, seed=seed) as load:
            killer = Killer(scene.service, load, seed=seed, postgres=scene.postgres)
            killer.kill(kills)
            lasted = time.monotonic() - started
        in_flight_seconds = _wait_until_settled(scene)
        found = _compare(scene, load)
        shares = _ask_rounds(scene)
        code = scene.service.stop()
    more: list[tuple[str, object]] = [
        ("last request to nothing in flight", f"{in_flight_seconds:.1f} s"),
        (f"keys asked in {ROUNDS} rounds afterwards", "/".join(map(str, shares))),
        ("seconds of killing", f"{lasted:.0f}"),
    ]
    with capsys.disabled():
        print(table(f"Crash loop on {engine}, seed {seed}", figures(load.received, killer.killed, found, more)))
    assert found.wrong == {}
    assert found.whole > 0
    assert shares == [ROUNDS] * len(KEYS)
    assert in_flight_seconds <= IN_FLIGHT_SECONDS
    assert code == 0
    assert [path for path in (scene.service.var_dir / "journal").iterdir() if path.stat().st_size] == []


@contextmanager
def _scene(folder: Path, engine: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        upstream = stack.enter_context(_upstream())
        postgres = stack.enter_context(postgres_server()) if engine == "postgresql" else None
        url = _new_database(postgres) if postgres is not None else ""
        variables = {
            "DATABASE_URL": url,
            "OPENROUTER_BASE_URL": f"{upstream.url}/api/v1",
            "OPENROUTER_API_KEYS": ",".join(KEYS),
            "OPENROUTER_RETRY_DELAY": "50",
            "OPENSVM_WORKERS": WEB_PROCESSES,
        }
        service = stack.enter_context(Service(folder, variables))
        yield Scene(service, upstream, Database(service.var_dir, url), postgres, service.client_key())


@contextmanager
def _upstream() -> Iterator[Controls]:
    """The sandbox as a process of its own, so that it does not share a core with the load."""
    keys = [option for key in KEYS for option in ("--key", key)]
    command = [sys.executable, "-m", "opensvm.sandbox", *keys]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Controls(process.stdout.readline().split()[-1].removesuffix("/api/v1"))
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _new_database(postgres: Postgres) -> str:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE crash")
    return postgres.url("crash")


def _script(upstream: Controls) -> None:
    """Answers that take a moment, and the usual trouble among them."""
    upstream.fail("rate_limited", key=KEYS[1], first=20, times=1, retry_after=1)
    upstream.fail("provider_busy", first=30, times=2)
    upstream.fail("error_mid_stream", streamed=True, first=20, times=3)
    upstream.behave(streamed=True, first=10, times=3, deltas=10, cut_after_events=5, cut="reset")
    upstream.behave(streamed=True, deltas=12, delay_between=0.03)
    upstream.behave(streamed=False, delay_headers=0.2)


def _wait_until_settled(scene: Scene) -> float:
    """How long it took until nothing was in flight; returns when every cost that can be known is."""
    ended = time.monotonic()
    wait_until(lambda: scene.database.in_flight() == 0, IN_FLIGHT_SECONDS + SETTLED_SECONDS)
    seconds = time.monotonic() - ended
    wait_until(lambda: answers(scene.service, "/readyz"), SETTLED_SECONDS)
    wait_until(lambda: scene.database.unknown_costs() == 0, SETTLED_SECONDS)
    return seconds


def _compare(scene: Scene, load: Load) -> Comparison:
    return compare(load.received, scene.upstream.ledger(), scene.database.rows())


def _ask_rounds(scene: Scene) -> list[int]:
    """How often each key is asked in `ROUNDS` rounds, once those on a cooldown have had their trial."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while scene.database.open_cooldowns():
        assert time.monotonic() < deadline, "a cooldown does not end"
        _ask(scene)
    assert scene.database.key_states() == {"active"}
    before = len(scene.upstream.requests())
    for _ in range(ROUNDS * len(KEYS)):
        _ask(scene)
    tails = [request.key_tail for request in scene.upstream.requests()[before:]]
    return [tails.count(tail) for tail in sorted(set(tails))]


def _ask(scene: Scene) -> None:
    body = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
    url, headers = f"{scene.service.url}/v1/messages", {"x-api-key": scene.client_key}
    assert httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False).status_code == 200
