"""The service's own settings, each by its effect on a running service."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from opensvm.sandbox.thread import SandboxServer
from tests.acceptance.crash.killer import children
from tests.acceptance.service import Service, wait_until
from tests.sandbox import SandboxFixture

ALPHA, BETA = "sk-or-v1-test-own-settings-alpha", "sk-or-v1-test-own-settings-beta"
COOLDOWN_SECONDS = 80
TIME_SCALE = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def service(folder: Path, sandbox_server: SandboxServer) -> Iterator[Service]:
    """A service for which every setting of its own is set, but for the ports and the broker."""
    variables = {
        "OPENROUTER_API_KEY": ALPHA,
        "OPENROUTER_API_KEYS": f" {ALPHA}, {BETA},,not-a-key",
        "OPENROUTER_BASE_URL": sandbox_server.base_url,
        "OPENSVM_HOST": "127.0.0.2",
        "OPENSVM_URL": "https://llm.test",
        "OPENSVM_TRUSTED_PROXIES": "127.0.0.0/8",
        "OPENSVM_WORKERS": "1",
        "OPENSVM_VAR_DIR": str(folder / "elsewhere"),
        "OPENSVM_LOG_FILE": str(folder / "own.log"),
        "OPENSVM_KEYRING": str(folder / "keys" / "ring.json"),
        "OPENSVM_ENVIRONMENT": "staging",
        "OPENSVM_COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
        "DATABASE_URL": f"sqlite:///{folder / 'own.sqlite3'}",
    }
    service = Service(folder, variables, "--role", "web", var_dir=folder / "elsewhere")
    service.log_file = folder / "own.log"
    service.url = f"http://127.0.0.2:{service.port}"
    with service:
        yield service


@pytest.fixture(scope="module")
def client_key(service: Service) -> str:
    return service.client_key("alice")


@pytest.fixture
def api(service: Service, client_key: str, sandbox: SandboxFixture) -> Iterator[httpx.Client]:
    sandbox.add_key(ALPHA, name="alpha")
    sandbox.add_key(BETA, name="beta")
    headers = {"x-api-key": client_key, "host": "llm.test"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=20, trust_env=False) as client:
        yield client


def _ask(api: httpx.Client) -> int:
    body = {"model": "claude-3-opus-4", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    return api.post("/v1/messages", json=body).status_code


def test_openrouter_api_key_and_openrouter_api_keys_are_one_pool(
    service: Service, api: httpx.Client, sandbox: SandboxFixture
) -> None:
    assert "✓ Initialized with 2 OpenRouter API key(s)" in service.output()
    assert "OPENROUTER_API_KEYS, entry 4" in service.output() + service.errors()
    assert "not-a-key" not in service.output() + service.errors()
    assert [_ask(api) for _ in range(4)] == [200] * 4
    assert sorted({request.key_name for request in sandbox.requests()}) == ["alpha", "beta"]


def test_opensvm_host_and_opensvm_port_are_where_it_listens(service: Service, api: httpx.Client) -> None:
    assert api.get("/healthz").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{service.port}/healthz", trust_env=False)


def test_opensvm_url_is_the_address_that_is_allowed_and_printed(service: Service, api: httpx.Client) -> None:
    assert "URL: https://llm.test" in service.output()
    assert "https://llm.test/v1/messages" in service.output() or "create_client" in service.output()
    assert api.get("/admin/login/").status_code == 200
    assert api.get("/admin/login/", headers={"host": "other.test"}).status_code == 400


def test_opensvm_url_with_https_makes_cookies_secure(api: httpx.Client) -> None:
    cookie = api.get("/admin/login/").headers["set-cookie"]
    assert cookie.startswith("csrftoken=")
    assert "Secure" in cookie


def test_opensvm_trusted_proxies_are_believed_about_the_client(
    service: Service, api: httpx.Client, folder: Path
) -> None:
    api.headers["x-forwarded-for"] = "203.0.113.9"
    assert _ask(api) == 200
    with sqlite3.connect(folder / "own.sqlite3") as database:
        found = database.execute("SELECT client_ip FROM keys_requestlog ORDER BY id DESC LIMIT 1").fetchone()
    assert found == ("203.0.113.9",)


def test_opensvm_workers_is_the_number_of_web_processes(service: Service) -> None:
    wait_until(lambda: len(children(service.child_pid("web"))) == 1)


def test_opensvm_var_dir_holds_what_is_not_set_apart(service: Service, folder: Path) -> None:
    assert (folder / "elsewhere" / "journal").is_dir()
    assert not (folder / "var").exists()


def test_opensvm_log_file_is_where_it_logs(service: Service, folder: Path) -> None:
    assert service.log("service.started")
    assert not (folder / "logs").exists()


def test_opensvm_keyring_is_where_the_master_keys_are(folder: Path, service: Service) -> None:
    ring = folder / "keys" / "ring.json"
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert not (folder / "elsewhere" / "keyring.json").exists()


def test_opensvm_environment_is_named_in_the_admin_and_in_the_log(service: Service, api: httpx.Client) -> None:
    assert "staging" in api.get("/admin/login/").text
    assert {line["environment"] for line in service.log()} == {"staging"}


def test_database_url_is_where_the_ledger_is(folder: Path, service: Service) -> None:
    assert (folder / "own.sqlite3").stat().st_size > 0
    assert not list((folder / "elsewhere").glob("*.sqlite3"))


def test_opensvm_cooldown_seconds_is_the_bench_without_a_hint(
    service: Service, api: httpx.Client, sandbox: SandboxFixture
) -> None:
    sandbox.fail("rate_limited", key="alpha", times=1)
    assert [_ask(api) for _ in range(2)] == [200, 200]
    (benched,) = service.log("key.benched")
    assert benched["seconds"] == pytest.approx(COOLDOWN_SECONDS * TIME_SCALE)


def test_celery_broker_url_is_a_folder_under_var_when_it_is_not_set(tmp_path: Path) -> None:
    with Service(tmp_path, None, "--role", "beat") as service:
        wait_until(lambda: (service.var_dir / "broker").is_dir())
