"""The service as a target: `manage.py serve` with everything that it runs in production, on either database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import load, statements
from bench.cores import running_on
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.load import Order
from bench.process_tree import Tree
from bench.targets import ROOT, Bench, Target, running_process, wait_until_ready
from tests.acceptance.service import Service
from tests.postgres import Postgres

SQLITE, POSTGRES = "ours on SQLite", "ours on PostgreSQL"
OURS = (SQLITE, POSTGRES)
_FILL_SECONDS = 3600.0
_COUNT_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Setup:
    """Without `postgres` it is on SQLite. `clients` above one ask in turn; `rows` are in the ledger beforehand."""

    name: str
    postgres: Postgres | None = None
    workers: int = 1
    pool: int = 3
    clients: int = 1
    rows: int = 0
    counted_at: tuple[int, ...] = ()  # connections at which the database's statements are counted
    slug: str = ""  # of its folder and its database, when the name alone would meet another's

    @property
    def starts_again(self) -> bool:
        return self.clients > 1 or self.rows > 0 or bool(self.counted_at)

    @property
    def place(self) -> str:
        return self.slug or "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())

    @property
    def database_url(self) -> str:
        return self.postgres.url(self.place) if self.postgres else ""


@contextmanager
def running_service(setup: Setup, bench: Bench) -> Iterator[Target]:
    """Its first start makes the database; a second one, if that is filled, or if the start is what is timed."""
    service = Service(bench.folder / setup.place, _variables(setup, bench))
    _make_database(setup)
    try:
        with running_on(bench.cores.server):
            service.start()
        client_key, seconds, counts = service.client_key("bench"), None, {}
        if setup.starts_again:
            service.stop()
            _fill(setup, service)
            counts = _count_statements(setup, service, client_key, bench)
            seconds = _start_again(service, bench)
        yield Target(
            name=setup.name,
            url=_messages_url(service),
            headers={"x-api-key": client_key},
            tree=Tree(service.process.pid),
            web=Tree(service.child_pid("web")),
            start_seconds=seconds,
            ledger=Ledger(setup.database_url or service.var_dir / "opensvm.sqlite3"),
            database=Tree(setup.postgres.pid) if setup.postgres else None,
            keys_file=_keys_file(service) if setup.clients > 1 else None,
            statements=counts,
        )
    finally:
        service.stop()


def _variables(setup: Setup, bench: Bench) -> dict[str, str]:
    return {
        "OPENROUTER_BASE_URL": bench.upstream.base_url,
        "OPENROUTER_API_KEYS": ",".join(f"sk-or-v1-bench-fake-{n:04}" for n in range(setup.pool)),
        "OPENSVM_TIME_SCALE": "1",
        "OPENSVM_WORKERS": str(setup.workers),
        "DATABASE_URL": setup.database_url,
    }


def _messages_url(service: Service) -> str:
    return f"{service.url}/v1/messages"


def _make_database(setup: Setup) -> None:
    if setup.postgres is not None:
        with psycopg.connect(setup.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {setup.place}".encode())


def _start_again(service: Service, bench: Bench) -> float:
    """Seconds until it was ready."""
    with running_on(bench.cores.server):
        service.launch()
    return wait_until_ready(f"{service.url}/readyz", service.process)


def _keys_file(service: Service) -> Path:
    """The keys of all clients, if there are more than one."""
    return service.folder / "client-keys"


def _fill(setup: Setup, service: Service) -> None:
    if setup.clients == 1 and not setup.rows:
        return
    keys_file = str(_keys_file(service))
    arguments = ["--rows", str(setup.rows), "--clients", str(setup.clients), "--keys-file", keys_file]
    done = subprocess.run(  # noqa: S603  # our own module
        [sys.executable, "-m", "bench.filling", *arguments],
        env=service.environment | {"DJANGO_SETTINGS_MODULE": "opensvm.settings"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=_FILL_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{setup.name} could not be filled: {done.stderr[-500:]}")


def _count_statements(setup: Setup, service: Service, client_key: str, bench: Bench) -> dict[int, float]:
    """Statements for each request, by connections: the web process alone, with a counter in it."""
    if not setup.counted_at:
        return {}
    order = Order(_messages_url(service), {"x-api-key": client_key})
    variables = service.environment | {"DJANGO_SETTINGS_MODULE": "opensvm.settings"}
    command = [sys.executable, "-m", "opensvm.serve.web", statements.TARGET]
    found = {}
    with running_process(f"{setup.place}_counted", command, variables, bench) as process:
        wait_until_ready(f"{service.url}/readyz", process)
        for connections in setup.counted_at:
            before = _statements(setup, service)
            answered = load.run(order, connections=connections, seconds=_COUNT_SECONDS).requests
            found[connections] = (_statements(setup, service) - before) / answered
    return found


def _statements(setup: Setup, service: Service) -> int:
    if setup.postgres is None:
        return statements.count_on_sqlite(service.port)
    return statements.count_on_postgres(setup.postgres, setup.place)
