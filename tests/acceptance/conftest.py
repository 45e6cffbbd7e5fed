"""Fixtures of the acceptance tests: the database they run on, and a sandbox service for a whole module."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests import hermetic
from tests.acceptance import browser
from tests.acceptance.service import Service

LONGEST_FIRST = ("shutdown", "crash_loop", "openapi", "outages", "browser", "pool", "no_secrets")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first, or one process would work on them while the other has nothing left."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def database_url() -> Iterator[str]:
    """For `DATABASE_URL`: empty, which is SQLite, or a fresh database of the PostgreSQL under test."""
    server = os.environ.get(hermetic.TEST_DATABASE_URL, "")
    if not server:
        yield ""
        return
    base, name = server.rpartition("/")[0], f"acceptance_{uuid.uuid4().hex}"
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"{base}/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def sandbox_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`serve --sandbox`, all of it and as it is; tests of a module share it, so they leave it running."""
    with Service.sandbox(tmp_path_factory.mktemp("sandbox"), {"OPENSVM_WORKERS": ""}) as service:
        yield service


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once that there was no browser: a plain `s` would not be seen."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any(browser.MISSING in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(browser.MISSING, yellow=True)
