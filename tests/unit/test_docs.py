"""The README and the code say the same: settings, commands, log events and paths, both ways."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keys.key_states import KeyAction

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PACKAGES = ("keys", "proxy", "opensvm")
SOURCES = {path: path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
SETTINGS_SOURCE = (ROOT / "opensvm" / "settings.py").read_text()
IMPORT_VARIABLES = {"OPENROUTER_API_KEY", "OPENROUTER_API_KEYS"}
ADMIN_VARIABLES = {"DJANGO_SUPERUSER_USERNAME", "DJANGO_SUPERUSER_PASSWORD"}
INTERNAL = {"OPENSVM_SUPERVISED", "OPENSVM_SANDBOX"}  # `serve` sets them for its own children


def _settings_in_code() -> set[str]:
    read = set(re.findall(r'(?:env\.\w+|_cooldown)\(\s*"([A-Z][A-Z_]+)"', SETTINGS_SOURCE))
    return (read | IMPORT_VARIABLES | ADMIN_VARIABLES) - INTERNAL


def _settings_in_readme() -> set[str]:
    table = README.split("## Settings", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)}


def _events_in_code() -> set[str]:
    return {event for text in SOURCES.values() for event in re.findall(r'"event": "([a-z_]+\.[a-z_]+)"', text)}


def _events_in_readme() -> set[str]:
    table = README.split("Events of the log", 1)[1].split("</details>", 1)[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", cell)}


def test_every_setting_is_in_the_readme_and_the_other_way_round() -> None:
    assert _settings_in_code() == _settings_in_readme()


def test_every_setting_is_in_the_example_file() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#? ?([A-Z]+_[A-Z_]+)=", example, re.MULTILINE))
    assert named == _settings_in_readme() - {"OPENSVM_TIME_SCALE"}


def test_every_log_event_is_in_the_readme() -> None:
    assert not _events_in_code() - _events_in_readme()


def test_every_log_event_of_the_readme_exists() -> None:
    made_of_actions = {f"key.{action.value}" for action in KeyAction}
    named_elsewhere = {event for event in _events_in_readme() if f'"{event}"' in "\n".join(SOURCES.values())}
    assert not _events_in_readme() - _events_in_code() - made_of_actions - named_elsewhere


def test_every_command_is_in_the_readme() -> None:
    commands = {
        path.stem
        for package in PACKAGES
        for path in (ROOT / package).glob("management/commands/*.py")
        if path.stem != "__init__"
    }
    assert commands
    assert not {command for command in commands if f"`manage.py {command}" not in README}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages",
        "/v1/chat/completions",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/models/{id}",
        "/api/docs/",
        "/api/schema/",
        "/api/keys/stats",
        "/api/usage",
        "/healthz",
        "/readyz",
        "/admin/",
    ],
)
def test_every_path_is_in_the_readme(path: str) -> None:
    assert path in README


def test_the_readme_names_no_file_that_does_not_exist() -> None:
    for name in re.findall(r"`((?:bin|keys|proxy|opensvm|tests)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
