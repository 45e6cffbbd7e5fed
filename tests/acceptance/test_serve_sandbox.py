"""`bin/serve --sandbox`, as a newcomer meets it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.service import ROOT, Service, is_running, wait_until


def test_the_printed_curl_is_answered(sandbox_service: Service) -> None:
    command = sandbox_service.output().partition("Ready. Try it:\n")[2].partition("}'\n")[0] + "}'"
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "curl"
    done = subprocess.run([*words, "-sS", "--noproxy", "*"], capture_output=True, text=True, timeout=20)
    answer = json.loads(done.stdout)
    assert answer["type"] == "message", done.stdout
    assert answer["model"] == "claude-3-sonnet-20240229"


def test_it_says_that_it_is_a_sandbox_and_where_it_is(sandbox_service: Service) -> None:
    output = sandbox_service.output()
    assert "SANDBOX" in output
    assert f"URL: {sandbox_service.url} " in output
    assert f"Log: {sandbox_service.log_file}" in output
    assert "✓ Initialized with 3 OpenRouter API key(s)" in output


def test_the_guides_two_lines_are_in_the_log(sandbox_service: Service) -> None:
    messages = [line["msg"] for line in sandbox_service.log()]
    assert "✓ Initialized with 3 OpenRouter API key(s)" in messages
    assert any(message.startswith("✓ Using OpenRouter endpoint: http://127.0.0.1:") for message in messages)


def test_everything_on_stdout_is_a_log_line_or_announced_text(sandbox_service: Service) -> None:
    lines = sandbox_service.output().splitlines()
    plain = [line for line in lines if not line.startswith("{")]
    for line in set(lines) - set(plain):
        json.loads(line)
    assert plain[0].startswith("OpenSVM key service")
    assert plain[-1].endswith("}'")  # the end of the curl


def test_without_a_terminal_the_admin_password_is_in_a_private_file(sandbox_service: Service) -> None:
    path = sandbox_service.var_dir / "admin-password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in sandbox_service.output()
    assert path.read_text().strip() not in sandbox_service.output() + sandbox_service.log_file.read_text()


def test_other_users_can_read_nothing_of_it(sandbox_service: Service) -> None:
    written = [sandbox_service.var_dir, *sandbox_service.var_dir.rglob("*")]
    assert sandbox_service.var_dir / "opensvm.sqlite3" in written
    assert [path for path in written if stat.S_IMODE(path.lstat().st_mode) & 0o007] == []


def test_its_client_key_is_kept_in_a_private_file(sandbox_service: Service) -> None:
    assert stat.S_IMODE((sandbox_service.var_dir / "client-key").stat().st_mode) == 0o600


def test_children_have_no_secret_of_the_start_in_their_environment(tmp_path: Path) -> None:
    secrets = {"OPENROUTER_API_KEY": "sk-or-v1-test-planted1", "DJANGO_SUPERUSER_PASSWORD": "test-planted2"}
    with Service(tmp_path, secrets, "--role", "beat") as service:
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in service.descendants()]
    assert environments
    assert not [text for text in environments if b"test-planted" in text]


@pytest.mark.parametrize("role", ["web", "worker", "beat", "upstream"])
def test_a_killed_process_is_started_again(sandbox_service: Service, role: str) -> None:
    wait_until(lambda: _age_seconds(sandbox_service, role) > 5.0)  # before that, it would stop the whole
    new = sandbox_service.kill_child(role)
    assert is_running(new)
    wait_until(lambda: _healthz(sandbox_service) == 200)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux only")
def test_web_processes_are_scheduled_for_throughput(sandbox_service: Service) -> None:
    policies = [os.sched_getscheduler(pid) for pid in sandbox_service.descendants()]
    assert policies.count(os.SCHED_BATCH) >= 2  # the server and its workers


def test_another_command_on_the_sandbox(sandbox_service: Service) -> None:
    key = sandbox_service.client_key("another", "--scope", "stats")
    status, body = sandbox_service.get("/api/keys/stats", {"x-api-key": key})
    assert status == 200
    assert json.loads(body)["totalKeys"] == 3


def test_a_second_start_prints_the_same_curl_and_a_real_pool_knows_nothing_of_it(tmp_path: Path) -> None:
    with Service.sandbox(tmp_path, None, "--role", "web") as first:
        key = first.client_key()
    assert key in first.output()
    with Service.sandbox(tmp_path, None, "--role", "web") as second:
        pass
    assert key in second.output()
    assert "password" not in second.output()
    with Service(tmp_path, None, "--role", "web") as real:
        keyrings = {(folder / "keyring.json").read_text() for folder in (second.var_dir, real.var_dir)}
        status, _ = real.get("/api/keys/stats", {"x-api-key": key})
    assert len(keyrings) == 2
    assert status == 401
    assert "At least one OpenRouter API key is required" in real.output()


def test_what_the_sandbox_ignores_is_told(tmp_path: Path) -> None:
    variables = {"OPENROUTER_API_KEYS": "sk-or-v1-test-real1", "DATABASE_URL": "postgres://nowhere.example/real"}
    with Service.sandbox(tmp_path, variables, "--role", "web") as service:
        stats = service.get("/api/keys/stats", {"x-api-key": service.client_key()})[1]
    assert "ignores OPENROUTER_API_KEYS, DATABASE_URL" in service.output()
    assert json.loads(stats)["totalKeys"] == 3


def test_it_runs_from_a_path_with_a_space_and_from_any_folder(tmp_path: Path) -> None:
    """`bin/serve` of a copy of the project, with the packages that are installed already."""
    copy = tmp_path / "a folder"
    not_ours = shutil.ignore_patterns(".venv", ".git", ".env", "var", "logs", ".cache", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=not_ours)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    program = (str(copy / "bin" / "serve"), "--sandbox", "--role", "web")
    with Service(tmp_path / "elsewhere", {"OPENSVM_VAR_DIR": "", "OPENSVM_LOG_FILE": ""}, program=program) as service:
        assert service.get("/healthz")[0] == 200
    assert (copy / "var" / "sandbox" / "keyring.json").exists()
    assert list((tmp_path / "elsewhere").iterdir()) != []


def _age_seconds(service: Service, role: str) -> float:
    """How long the process of `role` runs."""
    ticks = int(Path(f"/proc/{service.child_pid(role)}/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / 100


def _healthz(service: Service) -> int:
    try:
        return service.get("/healthz")[0]
    except OSError:
        return 0
