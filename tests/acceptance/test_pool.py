"""The pool with two web processes and without Celery: one round robin, one bench, one trial."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.service import Service
from tests.sandbox import SandboxFixture

NAMES = ("alpha", "beta", "gamma")
BENCH_SECONDS = 3
BODY = json.dumps(
    {"model": "anthropic/claude-sonnet-4.5", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
)


class Clients:
    """Callers of one service, each request on a connection of its own, so that both processes get some."""

    def __init__(self, service: Service, sandbox: SandboxFixture) -> None:
        self.service = service
        self.sandbox = sandbox
        self._headers = {"x-api-key": service.client_key("alice"), "content-type": "application/json"}

    def post(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=20)
        try:
            connection.request("POST", "/v1/messages", BODY, self._headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def post_all(self, count: int, at_once: int) -> Counter[str]:
        """Which keys upstream saw, how often; every request must be answered."""
        before = len(self.sandbox.requests())
        with ThreadPoolExecutor(at_once) as pool:
            statuses = Counter(pool.map(lambda _: self.post(), range(count)))
        assert statuses == {200: count}
        return Counter(self.asked_keys()[before:])

    def asked_keys(self) -> list[str]:
        return [request.key_name for request in self.sandbox.requests()]


@pytest.fixture
def clients(tmp_path: Path, sandbox: SandboxFixture, database_url: str) -> Iterator[Clients]:
    texts = [f"sk-or-v1-test-{name}" for name in NAMES]
    for name, text in zip(NAMES, texts, strict=True):
        sandbox.add_key(text, name=name)
    variables = {
        "DATABASE_URL": database_url,
        "OPENROUTER_API_KEYS": ",".join(texts),
        "OPENROUTER_BASE_URL": sandbox.base_url,
        "OPENSVM_WORKERS": "2",
    }
    with Service(tmp_path, variables, "--role", "web") as service:
        yield Clients(service, sandbox)


@pytest.mark.each_database
def test_three_hundred_requests_of_two_processes_go_to_three_keys_alike(clients: Clients) -> None:
    assert clients.post_all(300, at_once=12) == {"alpha": 100, "beta": 100, "gamma": 100}
    settled = clients.service.log("request.settled")
    assert len(settled) == 300
    shares = Counter(line["pid"] for line in settled)
    assert len(shares) == 2, "both processes took part"
    key = clients.service.client_key("bob", "--scope", "stats")
    _, stats = clients.service.get("/api/keys/stats", {"x-api-key": key})
    assert sorted(key["requests"] for key in json.loads(stats)["usage"].values()) == [100, 100, 100]


@pytest.mark.each_database
def test_a_limited_key_is_skipped_tried_by_one_request_and_rotates_again(clients: Clients) -> None:
    clients.sandbox.fail("rate_limited", key="beta", times=1, retry_after=BENCH_SECONDS)
    earliest_bench = time.monotonic()
    shares = clients.post_all(9, at_once=1)  # several at once may select it before its bench is committed
    latest_bench = time.monotonic()
    assert shares["beta"] == 1, "within the same request another key answered"
    assert latest_bench - earliest_bench < BENCH_SECONDS, "the machine was too slow to see the bench"
    assert shares.total() == 10

    time.sleep(BENCH_SECONDS + 0.1)  # from the latest moment at which it can have begun
    clients.sandbox.behave(key="beta", delay_headers=1.5, times=1)
    trial = clients.post_all(20, at_once=20)
    assert trial["beta"] == 1, "one request tries it while the others go on"
    assert sorted(trial.values()) == [1, 9, 10]

    rotated = clients.post_all(30, at_once=1)
    assert rotated == dict.fromkeys(NAMES, 10)
    in_turn = clients.asked_keys()[-30:]
    assert in_turn == in_turn[:3] * 10
