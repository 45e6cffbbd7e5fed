"""`manage.py serve` with a real pool: what stops a start, what is said, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.acceptance.service import ROOT, Service, is_running, wait_until

KEYS = "sk-or-v1-test-aaaaaaa1, sk-or-v1-test-bbbbbbb2 ,,sk-or-v1-test-aaaaaaa1,not-a-key"


@pytest.mark.each_database
def test_a_real_pool_from_the_environment(tmp_path: Path, database_url: str) -> None:
    variables = {"DATABASE_URL": database_url, "OPENROUTER_API_KEYS": KEYS, "OPENROUTER_TIMEOUT": "30000"}
    variables["OPENSVM_WORKERS"] = ""  # as many as are usual
    with Service(tmp_path, variables) as service:
        assert service.get("/healthz")[0] == 200
        assert service.get("/readyz")[0] == 200
    output = service.output()
    assert "✓ Initialized with 2 OpenRouter API key(s)" in output
    assert "OPENROUTER_API_KEYS, entry 5" in output
    assert "not-a-key" not in output + service.log_file.read_text()
    assert "OPENROUTER_TIMEOUT is 30 s" in output
    assert "create_client NAME" in output


@pytest.mark.each_database
def test_a_second_start_changes_nothing(tmp_path: Path, database_url: str) -> None:
    variables = {"DATABASE_URL": database_url, "OPENROUTER_API_KEY": "sk-or-v1-test-aaaaaaa1"}
    with Service(tmp_path, variables, "--role", "beat") as first:
        keyring = (first.var_dir / "keyring.json").read_bytes()
        first.client_key("alice")
    with Service(tmp_path, {"DATABASE_URL": database_url}, "--role", "beat") as second:
        assert (second.var_dir / "keyring.json").read_bytes() == keyring
    assert "✓ Initialized with 1 OpenRouter API key(s)" in second.output()
    assert "env-1 (...aaa1) is no longer in the environment" in second.output()
    assert "Admin user" not in second.output()
    assert "Ready. Try it:" in second.output()


@pytest.mark.each_database
def test_several_starts_at_once_make_one_keyring_and_one_of_each_key(tmp_path: Path, database_url: str) -> None:
    variables = {"DATABASE_URL": database_url, "OPENROUTER_API_KEYS": KEYS}
    services = [
        Service(tmp_path / str(number), variables, "--role", "beat", var_dir=tmp_path / "var").launch()
        for number in range(3)
    ]
    try:
        for service in services:
            wait_until(lambda service=service: "✓ Initialized with 2 " in service.output(), 40.0)  # type: ignore[misc]
        assert sum("Admin user" in service.output() for service in services) == 1
    finally:
        for service in services:
            service.stop()


def test_without_a_key_it_runs_and_says_what_is_required(tmp_path: Path) -> None:
    with Service(tmp_path, None, "--role", "web") as service:
        assert service.get("/healthz")[0] == 200
        assert service.get("/readyz")[0] == 503
    assert f"At least one OpenRouter API key is required: add one at {service.url}/admin/" in service.output()
    assert [line["msg"] for line in service.log("pool.empty")] == ["At least one OpenRouter API key is required"]


def test_who_listens_everywhere_is_told_an_address_that_answers(tmp_path: Path) -> None:
    with Service(tmp_path, {"OPENSVM_HOST": "0.0.0.0"}, "--role", "web") as service:
        assert f"URL: http://127.0.0.1:{service.port} " in service.output()
        assert "set OPENSVM_URL" in service.output()


def test_a_port_in_use_is_one_sentence_and_nothing_is_started(tmp_path: Path) -> None:
    service = Service(tmp_path)
    with socket.create_server(("127.0.0.1", service.port)):
        assert service.launch().wait_for_exit() == 1
    assert _only_line(service.errors()) == (
        f"Port {service.port} on 127.0.0.1 is in use: stop what listens there or set OPENSVM_PORT."
    )
    assert not service.var_dir.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENSVM_PORT", "eighty"),
        ("OPENSVM_PORT", "70000"),
        ("OPENSVM_URL", "example.com"),
        ("OPENSVM_TRUSTED_PROXIES", "the proxy"),
        ("OPENSVM_WORKERS", "0"),
        ("OPENSVM_DRAIN", "soon"),
        ("OPENSVM_COOLDOWN_SECONDS", "0"),
        ("OPENSVM_TIME_SCALE", "2"),
        ("OPENSVM_SANDBOX", "perhaps"),
        ("OPENROUTER_BASE_URL", "ftp://openrouter.ai"),
        ("OPENROUTER_TIMEOUT", "10s"),
        ("OPENROUTER_MAX_RETRIES", "-1"),
        ("OPENROUTER_RETRY_DELAY", "1e9"),
        ("OPENROUTER_HEADERS", "X-A: b"),
        ("OPENROUTER_HEADERS", '{"Authorization": "Bearer test-secret"}'),
        ("CELERY_BROKER_URL", "nonsense"),
        ("CELERY_BROKER_URL", "no-such-transport://x:test-secret@y"),
        ("DATABASE_URL", "mysql://db/opensvm"),
        ("DATABASE_URL", "nonsense"),
        ("OPENSVM_HOST", "192.0.2.1"),
    ],
    ids=lambda value: value[:24],
)
def test_a_setting_that_cannot_be_understood_stops_the_start(tmp_path: Path, name: str, value: str) -> None:
    service = Service(tmp_path, {name: value}, "--role", "web").launch()
    assert service.wait_for_exit() == 1
    line = _only_line(service.errors())
    assert name in line
    assert "test-secret" not in line
    assert service.output() == ""


@pytest.mark.parametrize("variable", ["OPENSVM_VAR_DIR", "OPENSVM_KEYRING", "OPENSVM_LOG_FILE"])
def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path, variable: str) -> None:
    (tmp_path / "file").write_text("no folder")
    service = Service(tmp_path, {variable: str(tmp_path / "file" / "in-it")}, "--role", "beat").launch()
    assert service.wait_for_exit() == 1
    assert variable in _only_line(service.errors())


def test_a_database_that_does_not_answer_stops_the_start(tmp_path: Path) -> None:
    service = Service(
        tmp_path, {"DATABASE_URL": "postgres://user:test-secret@127.0.0.1:9/db"}, "--role", "beat"
    ).launch()
    assert service.wait_for_exit() == 1
    line = _only_line(service.errors())
    assert line.startswith("The database can't be used")
    assert "DATABASE_URL" in line
    assert "test-secret" not in line


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_a_missing_or_wrong_keyring_stops_the_start_and_names_the_key_id(tmp_path: Path, damage: str) -> None:
    with Service(tmp_path, None, "--role", "beat") as service:
        pass
    path = service.var_dir / "keyring.json"
    key_id = service.log("master_key.activated")[0]["master_key"]
    path.rename(tmp_path / "kept.json")
    if damage == "another":
        with Service(tmp_path / "other", None, "--role", "beat") as other:
            pass
        path.write_bytes((other.var_dir / "keyring.json").read_bytes())
        path.chmod(0o600)
    again = Service(tmp_path, None, "--role", "beat").launch()
    assert again.wait_for_exit() == 1
    assert key_id in _only_line(again.errors())
    assert path.exists() is (damage == "another")


def test_the_admin_user_of_the_environment_is_made_once(tmp_path: Path) -> None:
    variables = {"DJANGO_SUPERUSER_USERNAME": "alice", "DJANGO_SUPERUSER_PASSWORD": "test-password"}
    with Service(tmp_path, variables, "--role", "beat") as first:
        pass
    assert "Admin user 'alice' is made" in first.output()
    assert "test-password" not in first.output() + first.log_file.read_text()
    assert not (first.var_dir / "admin-password").exists()
    with Service(tmp_path, variables, "--role", "beat") as second:
        pass
    assert "Admin user" not in second.output()


def test_on_a_terminal_the_admin_password_is_shown_once(tmp_path: Path) -> None:
    shown = _on_a_terminal(Service(tmp_path, None, "--role", "beat"))
    assert "Admin user 'admin' is made. Its password, shown this once: " in shown
    assert not (tmp_path / "var" / "admin-password").exists()


def test_sigterm_ends_everything_with_exit_code_0(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        below = service.descendants()
        assert service.stop() == 0
    assert len(below) >= 4
    assert not [pid for pid in below if is_running(pid)]


def test_a_killed_serve_leaves_no_orphan(tmp_path: Path) -> None:
    with Service.sandbox(tmp_path) as service:
        below = service.descendants()
        service.kill()
        wait_until(lambda: not [pid for pid in below if is_running(pid)])
    assert len(below) >= 5


def test_a_process_that_cannot_start_stops_the_whole(tmp_path: Path) -> None:
    service = Service(tmp_path, None, "--role", "web")
    service.var_dir.mkdir()
    (service.var_dir / "journal").write_text("no folder")
    service.launch()
    assert service.wait_for_exit() == 1
    assert "The web process ended with exit code" in service.errors()


def test_manage_by_a_python_without_django_continues_in_the_venv(tmp_path: Path) -> None:
    bare = os.path.realpath("/proc/self/exe")
    service = Service(tmp_path, None, program=(bare, "-S", str(ROOT / "manage.py"), "create_client", "--help"))
    assert service.launch().wait_for_exit() == 0
    assert "create_client" in service.output()


def _only_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def _on_a_terminal(service: Service) -> str:
    """What `serve` shows on a pseudo-terminal until it is up."""
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir("/")
        os.execve(service.command[0], service.command, service.environment)  # noqa: S606  # no shell wanted
    shown = b""
    while b"create_client" not in shown:
        shown += os.read(terminal, 4096)
    os.kill(pid, signal.SIGINT)
    assert os.waitpid(pid, 0)[1] == 0
    return shown.decode()
