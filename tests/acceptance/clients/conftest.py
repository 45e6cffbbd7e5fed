"""One service with a sandbox upstream for all clients, whose faults are asked for by the model's name."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from opensvm.sandbox.remote import Controls
from opensvm.serve.sandbox import PORT_FILE
from tests.acceptance.clients.record import Record
from tests.acceptance.service import Service, wait_until

FAILURES = (
    *("context_length", "moderation", "no_endpoints", "too_large", "unprocessable", "capacity"),
    *("server_error", "unavailable", "gateway_timeout", "overloaded", "cannot_afford"),
)
CONFLICT = {"error": {"code": 409, "message": "The request conflicts with another."}}
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

    def arrived(self) -> Counter[str]:
        """The requests that the service has logged so far, by model; "refused" are those with a wrong client key."""
        models = [str(line["model"]) for line in self.service.log("request.settled")]
        return Counter(models) + Counter(refused=len(self.service.log("client.refused")))

    def check_arrivals(self, expected: Mapping[str, int], since: Counter[str]) -> None:
        """So many requests of each model named in `expected` have reached the service `since`, and no more."""

        def arrived() -> Counter[str]:
            fresh = self.arrived() - since
            return Counter({model: fresh[model] for model in expected})

        wait_until(lambda: arrived() >= Counter(expected))  # a line may come after the answer
        assert arrived() == Counter(expected)

    def script(self) -> None:
        """Without the requests of clients before, and with the faults that all of them ask for."""
        self.upstream.reset()
        for path in PATHS:
            for failure in FAILURES:
                self.upstream.fail(failure, model=f"fail/{failure}", path=path)
            self.upstream.behave(model="fail/conflict", status=409, body=json.dumps(CONFLICT), path=path)
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
    if client is not None and (report.when == "call" or report.failed):
        RECORD.note(*client, name, passed=report.passed)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Kept for the README's table."""
    if is_whole(session.config):
        RECORD.save()


def is_whole(config: pytest.Config) -> bool:
    """Whether each client that was asked was asked everything."""
    chosen = (config.option.keyword, config.option.markexpr, config.option.deselect, *("::" in a for a in config.args))
    return not any(chosen)


def _module_of(report: pytest.TestReport) -> str:
    return report.nodeid.partition("::")[0].removesuffix(".py").replace("/", ".")
