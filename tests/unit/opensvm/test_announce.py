"""What `serve` prints, in which order."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from keys.services.key_imports import ImportedKey, ImportReport
from opensvm.serve import announce
from opensvm.serve.admin_user import AdminUser

READY = announce.Situation(
    url="http://127.0.0.1:8000",
    log_file=Path("/srv/logs/opensvm.log"),
    upstream_url="https://openrouter.ai/api/v1",
    environment="production",
    manage=Path("/srv/a folder/manage.py"),
    active_keys=3,
    clients=1,
    timeout_seconds=600.0,
)


def test_the_guides_two_lines_are_printed() -> None:
    lines = announce.status_lines(READY)
    assert "✓ Initialized with 3 OpenRouter API key(s)" in lines
    assert "✓ Using OpenRouter endpoint: https://openrouter.ai/api/v1" in lines


def test_url_and_log_are_named() -> None:
    text = "\n".join(announce.status_lines(READY))
    assert "http://127.0.0.1:8000" in text
    assert "/srv/logs/opensvm.log" in text


def test_a_sandbox_says_first_that_it_is_one() -> None:
    assert announce.status_lines(replace(READY, is_sandbox=True))[0].startswith("SANDBOX")
    assert not any("SANDBOX" in line for line in announce.status_lines(READY))


def test_a_role_without_the_web_names_no_url() -> None:
    assert not any(line.startswith("URL") for line in announce.status_lines(replace(READY, serves_web=False)))


def test_without_a_key_the_page_to_add_one_is_named_first() -> None:
    first, second = announce.next_lines(replace(READY, active_keys=0, clients=0))
    assert first.startswith("At least one OpenRouter API key is required")
    assert first.endswith("http://127.0.0.1:8000/admin/keys/openrouterkey/add/")
    assert shlex.split(second)[-3:] == ["/srv/a folder/manage.py", "create_client", "NAME"]


def test_without_a_client_the_command_to_make_one_is_named() -> None:
    (line,) = announce.next_lines(replace(READY, clients=0))
    assert "create_client NAME" in line


def test_when_nothing_is_missing_the_guides_curl_is_printed() -> None:
    _, command = announce.next_lines(READY)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:4] == ["curl", "-X", "POST", "http://127.0.0.1:8000/v1/messages"]
    assert "Authorization: Bearer sk-ant-api03-your-opensvm-key" in words
    assert "anthropic-version: 2023-06-01" in words
    assert json.loads(words[-1])["model"] == "claude-3-sonnet-20240229"


def test_the_sandboxes_curl_has_its_client_key() -> None:
    assert "Bearer sk-ant-api03-test-1" in announce.curl(replace(READY, client_key="sk-ant-api03-test-1"))


@pytest.mark.parametrize(("seconds", "warned"), [(30.0, True), (119.999, True), (120.0, False), (600.0, False)])
def test_a_timeout_under_two_minutes_is_warned_of(seconds: float, warned: bool) -> None:
    lines = announce.warnings(replace(READY, timeout_seconds=seconds))
    assert bool(lines) is warned
    assert all("OPENROUTER_TIMEOUT" in line for line in lines)


@pytest.mark.parametrize(
    ("url", "everywhere", "warned"),
    [
        ("http://127.0.0.1:8000", True, True),
        ("http://[::1]:8000", True, True),
        ("http://127.0.0.1:8000", False, False),
        ("https://llm.example.com", True, False),
    ],
    ids=["everywhere", "everywhere, IPv6", "this machine alone", "a public address"],
)
def test_listening_everywhere_without_a_public_address_is_warned_of(url: str, everywhere: bool, warned: bool) -> None:
    lines = announce.warnings(replace(READY, url=url, listens_everywhere=everywhere))
    assert bool(lines) is warned
    assert all("OPENSVM_URL" in line for line in lines)


@pytest.mark.parametrize(
    ("user", "told"),
    [
        (AdminUser("admin", password="test-password"), "test-password"),
        (AdminUser("admin", password_file=Path("/srv/var/admin-password")), "/srv/var/admin-password"),
        (AdminUser("alice"), "DJANGO_SUPERUSER_PASSWORD"),
    ],
    ids=["generated, on a terminal", "generated, without one", "from the environment"],
)
def test_the_admin_users_password_is_told(user: AdminUser, told: str) -> None:
    assert told in announce.admin_user_line(user)
    assert user.name in announce.admin_user_line(user)


def test_a_password_never_shows_in_a_repr() -> None:
    assert "test-password" not in repr(AdminUser("admin", password="test-password"))


def test_bad_and_missing_environment_keys_are_told_without_their_text() -> None:
    report = ImportReport(
        refused=("OPENROUTER_API_KEYS, entry 2",), missing=(ImportedKey("env-1", "...abc1", "active"),)
    )
    bad, missing = announce.import_lines(report)
    assert "OPENROUTER_API_KEYS, entry 2" in bad
    assert "env-1 (...abc1)" in missing
