"""The OpenRouter setup guide's promises, sentence by sentence: its Verify, Monitoring and Troubleshooting sections."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from opensvm.sandbox.thread import SandboxServer
from tests.acceptance.service import Service, wait_until
from tests.sandbox import SandboxFixture

KEYS = {name: f"sk-or-v1-test-guide-{name}" for name in ("prod1", "prod2", "prod3")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sandbox_server: SandboxServer) -> Iterator[Service]:
    variables = {
        "OPENROUTER_API_KEYS": ",".join(KEYS.values()),
        "OPENROUTER_BASE_URL": sandbox_server.base_url,
        "OPENSVM_WORKERS": "2",
    }
    with Service(tmp_path_factory.mktemp("guide"), variables, "--role", "web") as service:
        yield service


@pytest.fixture(scope="module")
def client_key(service: Service) -> str:
    return service.client_key("alice", "--scope", "stats")


@pytest.fixture
def api(service: Service, client_key: str, sandbox: SandboxFixture) -> Iterator[httpx.Client]:
    for name, text in KEYS.items():
        sandbox.add_key(text, name=name)
    headers = {"authorization": f"Bearer {client_key}", "anthropic-version": "2023-06-01"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=20, trust_env=False) as client:
        yield client


def _ask(api: httpx.Client) -> httpx.Response:
    question = {"role": "user", "content": "Hello! Can you confirm you are working through OpenRouter?"}
    body = {"model": "claude-3-sonnet-20240229", "max_tokens": 100, "messages": [question]}
    return api.post("/v1/messages", json=body)


def _grep(service: Service, words: str) -> list[str]:
    found = subprocess.run(["grep", words, str(service.log_file)], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def _free_all(api: httpx.Client) -> None:
    wait_until(lambda: all(not key["isFailed"] for key in api.get("/api/keys/stats").json()["usage"].values()), 40)


# -- Verify configuration ---------------------------------------------------------------------------------------------
def test_check_logs_for_successful_initialization(service: Service) -> None:
    assert _grep(service, "✓ Initialized with 3 OpenRouter API key(s)")
    assert _grep(service, "✓ Using OpenRouter endpoint: http")


# -- Multi-key load balancing -----------------------------------------------------------------------------------------
def test_keys_are_used_in_sequence(api: httpx.Client, sandbox: SandboxFixture) -> None:
    assert {_ask(api).status_code for _ in range(6)} == {200}
    order = [request.key_name for request in sandbox.requests()]
    assert order[:3] == order[3:]
    assert sorted(order[:3]) == sorted(KEYS)


def test_key_usage_statistics_have_the_guides_shape(api: httpx.Client) -> None:
    stats = api.get("/api/keys/stats").json()
    assert (stats["totalKeys"], stats["activeKeys"], stats["failedKeys"]) == (3, 3, 0)
    assert list(stats["usage"]) == ["key_1", "key_2", "key_3"]
    assert set(stats["usage"]["key_1"]) == {"requests", "lastUsed", "isFailed", "keyPreview"}
    assert stats["usage"]["key_1"]["keyPreview"] == "...rod1"


# -- Monitoring: the three greps --------------------------------------------------------------------------------------
def test_grep_key_ending_shows_which_keys_are_used(service: Service, api: httpx.Client) -> None:
    before = len(_grep(service, "key ending"))
    _ask(api)
    lines = _grep(service, "key ending")[before:]
    assert len(lines) == 1
    assert "key ending ...rod" in lines[0]


def test_grep_rate_limit_and_trying_next_key_show_failover(
    service: Service, api: httpx.Client, sandbox: SandboxFixture
) -> None:
    sandbox.fail("rate_limited", times=1, retry_after=1)
    assert _ask(api).status_code == 200
    assert any("key ending ...rod" in line for line in _grep(service, "rate limit"))
    assert any("key ending ...rod" in line for line in _grep(service, "trying next key"))
    _free_all(api)


# -- Troubleshooting --------------------------------------------------------------------------------------------------
def test_at_least_one_openrouter_api_key_is_required(tmp_path: Path) -> None:
    with Service(tmp_path, {"OPENROUTER_API_KEYS": " , "}, "--role", "web") as service:
        assert "At least one OpenRouter API key is required" in service.output()
        assert _grep(service, "At least one OpenRouter API key is required")
        assert service.get("/readyz")[0] == 503
        with httpx.Client(base_url=service.url, headers={"x-api-key": service.client_key("bob")}) as api:
            answer = _ask(api)
        assert answer.status_code == 529
        assert "At least one OpenRouter API key is required" in answer.json()["error"]["message"]


def test_typos_and_extra_spaces_are_named_or_forgiven(tmp_path: Path) -> None:
    variables = {"OPENROUTER_API_KEYS": f"  {KEYS['prod1']} ,sk-or-v2-typo", "OPENROUTER_API_KEY": KEYS["prod2"] + " "}
    with Service(tmp_path, variables, "--role", "web") as service:
        assert "✓ Initialized with 2 OpenRouter API key(s)" in service.output()
        assert "OPENROUTER_API_KEYS, entry 2" in service.output()
        assert "sk-or-v2-typo" not in service.output() + service.errors() + service.log_file.read_text()


def test_all_keys_exhausted_when_all_have_hit_rate_limits_and_over_after_the_cooldown(
    service: Service, api: httpx.Client, sandbox: SandboxFixture
) -> None:
    sandbox.fail("rate_limited", times=3, retry_after=1)
    answer = _ask(api)
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert answer.json()["error"]["message"].startswith("All keys exhausted")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert _grep(service, "All keys exhausted")
    _free_all(api)
    wait_until(lambda: _ask(api).status_code == 200)


def test_uneven_key_usage_is_due_to_limits_and_balances_out(
    service: Service, api: httpx.Client, sandbox: SandboxFixture
) -> None:
    sandbox.fail("rate_limited", key="prod2", times=1, retry_after=1)
    for _ in range(6):
        _ask(api)
    skipped = [request.key_name for request in sandbox.requests() if request.status == 200]
    assert skipped.count("prod2") < 2
    _free_all(api)
    wait_until(lambda: _ask(api).status_code == 200)
    sandbox.reset()
    for _ in range(9):
        _ask(api)
    assert sorted(request.key_name for request in sandbox.requests()) == sorted([*KEYS] * 3)


def test_key_not_being_used_shows_why_in_the_log(service: Service, api: httpx.Client, sandbox: SandboxFixture) -> None:
    sandbox.fail("rate_limited", key="prod3", times=1, retry_after=1)
    for _ in range(3):
        _ask(api)
    lines = [line for line in service.log("key.benched") if line["key"] == "...rod3"]
    assert lines[-1]["cause"] == "key_rate_limited"
    assert lines[-1]["seconds"] == pytest.approx(1.0)
    _free_all(api)
