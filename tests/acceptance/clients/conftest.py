"""One service with a sandbox upstream for all clients, whose faults are asked for by the model's name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from opensvm.sandbox.remote import Controls
from opensvm.serve.sandbox import PORT_FILE
from tests.acceptance.clients.record import Record
from tests.acceptance.service import Service

FAILURES = (
    *("context_length", "moderation", "no_endpoints", "too_large", "unprocessable", "capacity"),
    *("server_error", "unavailable", "gateway_timeout", "overloaded"),
)
PATHS = ("/messages", "/chat/completions")
QUICK = {"OPENROUTER_RETRY_DELAY": "10", "OPENROUTER_MAX_RETRIES": "1", "OPENSVM_WORKERS": "1"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a client is pointed at, and what stands behind it."""

    service: Service
    upstream: Controls
    client_key: str

    @property
    def url(self) -> str:
        return self.service.url

    def script(self) -> None:
        """Without the requests of clients before, and with the faults that all of them ask for."""
        self.upstream.reset()
        for path in PATHS:
            for failure in FAILURES:
                self.upstream.fail(failure, model=f"fail/{failure}", path=path)
            self.upstream.fail("error_first_event", model="anthropic/claude-sonnet-4", path=path)
            self.upstream.fail("error_mid_stream", model="anthropic/claude-3.7-sonnet", path=path)
            self.upstream.behave(model="anthropic/claude-3-opus", cut_after_events=4, cut="close", path=path)
            self.upstream.behave(model="anthropic/claude-3-haiku", delay_between=0.02, deltas=500, path=path)
            self.upstream.behave(model="anthropic/claude-opus-4.1", delay_headers=3.0, path=path)


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Service.sandbox(tmp_path_factory.mktemp("clients"), QUICK, "--role", "web") as service:
        port = (service.var_dir / PORT_FILE).read_text().strip()
        yield Target(service, Controls(f"http://127.0.0.1:{port}"), service.client_key())


@pytest.fixture(scope="module")
def target(started: Target) -> Target:
    started.script()
    return started


RECORD = Record()


@pytest.fixture(scope="session")
def record() -> Record:
    return RECORD


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The tests of a module with a `CLIENT` (name, version) are its scenarios, once they have passed."""
    name = report.nodeid.rpartition("::")[2].partition("[")[0].removeprefix("test_")
    client = getattr(sys.modules.get(_module_of(report)), "CLIENT", None)
    if client is not None and report.when == "call" and report.passed:
        RECORD.note(*client, name)


def pytest_sessionfinish() -> None:
    """Kept for the README's table."""
    RECORD.save()


def _module_of(report: pytest.TestReport) -> str:
    return report.nodeid.partition("::")[0].removesuffix(".py").replace("/", ".")
