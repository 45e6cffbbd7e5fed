"""Ways in which a database goes away under a running data plane, and a plane that has a journal."""

from __future__ import annotations

import dataclasses
import fcntl
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.db.backends.signals import connection_created

from keys.causes import BenchPolicy
from keys.journal import Journal
from keys.lane import Lane
from keys.lane_watch import Patience
from keys.steps.batch import BatchRules
from proxy.service import Service
from tests.data_plane import DataPlane
from tests.fault_proxy import FaultProxy
from tests.sandbox import SandboxFixture

PATIENCE = Patience(admit_seconds=0.7, step_seconds=2.0, hang_seconds=3.0)


class JournaledPlane(DataPlane):
    """As `opensvm.wiring` builds it, with a journal in `folder`. `restart` is another process that takes over."""

    def __init__(self, sandbox: SandboxFixture, changes: dict[str, Any], folder: Path) -> None:
        super().__init__(sandbox, changes)
        self.folder = folder

    def _build_service(self) -> Service:
        worker = uuid.uuid4()
        journal = Journal(self.folder, worker, max_bytes=1024 * 1024)
        lane = Lane(BatchRules(worker, BenchPolicy(), 60.0), clock=self.clock, journal=journal, patience=PATIENCE)
        return dataclasses.replace(super()._build_service(), lane=lane, journal=journal)

    @property
    def journal(self) -> Journal:
        assert self.service.journal is not None
        return self.service.journal

    def readiness(self) -> tuple[int, Any]:
        reply = self.open(method="GET", path="/readyz").reply()
        return reply.status, reply.json()


# -- SQLite ----------------------------------------------------------------------------------------------------------
@contextmanager
def locked_by_another_program(_: FaultProxy | None) -> Iterator[None]:
    """As a backup or a forgotten `sqlite3` shell does it."""
    with _other_program() as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def locked_by_our_own_lock_file(_: FaultProxy | None) -> Iterator[None]:
    """Another process of the service has stopped in the middle of a transaction."""
    with open(f"{connection.settings_dict['NAME']}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def read_only(_: FaultProxy | None) -> Iterator[None]:
    with _each_connection("PRAGMA query_only = 1"), locked_by_another_program(None):
        yield


@contextmanager
def _other_program() -> Iterator[sqlite3.Connection]:
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, timeout=5)
    try:
        yield other
    finally:
        other.close()


@contextmanager
def _each_connection(pragma: str) -> Iterator[None]:
    """For every connection that is opened now."""

    def change(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(pragma)

    connection_created.connect(change)
    try:
        yield
    finally:
        connection_created.disconnect(change)


# -- PostgreSQL ------------------------------------------------------------------------------------------------------
@contextmanager
def behind_a_proxy() -> Iterator[FaultProxy]:
    """Connections that are opened from now on go through it."""
    settings = connections.settings["default"]
    host, port = settings["HOST"], settings["PORT"]
    with FaultProxy(host or "127.0.0.1", int(port)) as proxy:
        settings.update(HOST="127.0.0.1", PORT=str(proxy.port))
        connection.close()
        try:
            yield proxy
        finally:
            connection.close()
            settings.update(HOST=host, PORT=port)


@contextmanager
def refuses(proxy: FaultProxy | None) -> Iterator[None]:
    assert proxy is not None
    proxy.go_down()
    yield
    proxy.come_up()


def misbehaves(**faults: Any) -> Callable[[FaultProxy | None], Any]:
    @contextmanager
    def outage(proxy: FaultProxy | None) -> Iterator[None]:
        assert proxy is not None
        proxy.behave(**faults)
        yield
        proxy.behave()

    return outage


half_open = misbehaves(stalls=True)
slow_commits = misbehaves(on=b"COMMIT", then="delay", delay_seconds=2.5)
cuts_in_transactions = misbehaves(on=b"EXECUTE", then="cut_before")
cuts_before_commits = misbehaves(on=b"COMMIT", then="cut_before")
loses_confirmations = misbehaves(on=b"COMMIT", then="cut_after", delay_seconds=0.05)
