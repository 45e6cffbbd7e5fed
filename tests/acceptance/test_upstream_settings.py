"""The guide's upstream variables, each by its effect on a running service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from opensvm.sandbox.thread import SandboxServer
from tests.acceptance.service import Service
from tests.sandbox import SandboxFixture

KEY = "sk-or-v1-test-settings-0001"
VARIABLES = {
    "OPENROUTER_API_KEY": KEY,
    "OPENROUTER_TIMEOUT": "700",
    "OPENROUTER_MAX_RETRIES": "2",
    "OPENROUTER_RETRY_DELAY": "200",
    "OPENROUTER_HEADERS": json.dumps(
        {"HTTP-Referer": "https://opensvm.example", "X-Title": "OpenSVM", "user-agent": "us/1"}
    ),
}
ASKED: dict[str, Any] = {"model": "claude-3-opus-4", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sandbox_server: SandboxServer) -> Iterator[Service]:
    variables = {**VARIABLES, "OPENROUTER_BASE_URL": f"{sandbox_server.base_url}/"}
    with Service(tmp_path_factory.mktemp("settings"), variables, "--role", "web") as service:
        yield service


@pytest.fixture(scope="module")
def client_key(service: Service) -> str:
    return service.client_key("alice")


@pytest.fixture
def api(service: Service, client_key: str, sandbox: SandboxFixture) -> Iterator[httpx.Client]:
    sandbox.add_key(KEY, name="alpha")
    with httpx.Client(base_url=service.url, headers={"x-api-key": client_key}, timeout=20, trust_env=False) as client:
        assert _ask(client).status_code == 200  # connections of the test before are gone
        sandbox.reset()
        yield client


def _ask(api: httpx.Client, **changes: Any) -> httpx.Response:
    return api.post("/v1/messages", json={**ASKED, **changes})


def test_openrouter_base_url(service: Service, api: httpx.Client, sandbox: SandboxFixture) -> None:
    assert _ask(api).status_code == 200
    (asked,) = sandbox.requests("")
    assert (asked.method, asked.path, asked.key_name) == ("POST", "/api/v1/messages", "alpha")
    assert f"✓ Using OpenRouter endpoint: {sandbox.base_url}\n" in service.output()


def test_openrouter_headers(api: httpx.Client, sandbox: SandboxFixture) -> None:
    _ask(api)
    headers = sandbox.requests()[0].headers
    assert (headers["http-referer"], headers["x-title"]) == ("https://opensvm.example", "OpenSVM")
    assert headers["user-agent"] == "us/1"


def test_openrouter_timeout_ends_a_silence(api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.behave(hang_up="stall")
    started = time.monotonic()
    answer = _ask(api)
    assert 0.6 < time.monotonic() - started < 2.0
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
    assert answer.headers["x-should-retry"] == "false"
    assert len(sandbox.requests()) == 1  # not sent again: it may have been billed


def test_openrouter_timeout_counts_bytes_of_any_kind_as_life(api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.behave(delay_first_event=1.5, comment_seconds=0.3)
    assert _ask(api, stream=True).text.endswith('data: {"type":"message_stop"}\n\n')


def test_openrouter_timeout_ends_a_silence_in_mid_stream(api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.behave(cut_after_events=3, cut="stall")
    answer = _ask(api, stream=True)
    assert "event: error\n" in answer.text
    assert "timeout_error" in answer.text
    assert "message_stop" not in answer.text


def test_openrouter_max_retries(api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.fail("server_error")
    answer = _ask(api)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "api_error")
    assert len(sandbox.requests()) == 3  # the first try and two retries


def test_openrouter_max_retries_is_enough_for_what_passes(api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.fail("bad_gateway", times=2)
    assert _ask(api).status_code == 200


def test_openrouter_retry_delay_grows_exponentially_with_jitter(api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.fail("server_error")
    _ask(api)
    first, second, third = (request.at for request in sandbox.requests())
    assert 0.2 <= (second - first).total_seconds() < 0.2 * 1.25 + 0.15
    assert 0.4 <= (third - second).total_seconds() < 0.4 * 1.25 + 0.15
