"""What `.env` may look like."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opensvm.env_file import read_env_file
from opensvm.environment import SettingError

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = {
    "OPENROUTER_BASE_URL": "https://openrouter.ai/api/v1",
    "OPENROUTER_TIMEOUT": "600000",
    "OPENROUTER_MAX_RETRIES": "3",
    "OPENROUTER_RETRY_DELAY": "1000",
    "OPENSVM_HOST": "127.0.0.1",
    "OPENSVM_PORT": "8000",
    "OPENSVM_VAR_DIR": "var",
    "OPENSVM_LOG_FILE": "logs/opensvm.log",
    "OPENSVM_KEYRING": "var/keyring.json",
    "OPENSVM_COOLDOWN_SECONDS": "300",
    "OPENSVM_ENVIRONMENT": "production",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NAME=value", "value"),
        ("NAME=value # a comment", "value"),
        ("NAME=30000  # 30 seconds", "30000"),
        ("NAME='value # no comment'", "value # no comment"),
        ('NAME="two words"', "two words"),
        ("export NAME=value", "value"),
        ("# NAME=old\nNAME=new", "new"),
        ("NAME=a$HOME${PATH}b", "a$HOME${PATH}b"),
        ("NAME=", ""),
        ("\ufeffNAME=value\r\n", "value"),
        ("NAME=sk-or-v1-a,sk-or-v1-b", "sk-or-v1-a,sk-or-v1-b"),
    ],
    ids=[
        "plain",
        "comment",
        "the guide's comment",
        "quoted hash",
        "quoted",
        "export",
        "line comment",
        "nothing is expanded",
        "empty",
        "BOM and CRLF",
        "several keys",
    ],
)
def test_a_value_is_read_as_a_shell_would(tmp_path: Path, text: str, value: str) -> None:
    assert _read(tmp_path, text.encode()) == {"NAME": value}


def test_the_real_environment_wins_also_when_it_is_empty(tmp_path: Path) -> None:
    variables = {"NAME": "real", "EMPTY": ""}
    (tmp_path / ".env").write_text("NAME=file\nEMPTY=file\nOTHER=file\n")
    read_env_file(tmp_path / ".env", variables)
    assert variables == {"NAME": "real", "EMPTY": "", "OTHER": "file"}


def test_no_file_is_fine(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    read_env_file(tmp_path / ".env", variables)
    assert variables == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"A=1\nsk-or-v1-test-secret\n", r"line 2, can't be understood: write NAME=value\.$"),
        (b"A='open\n", "line 1"),
        (b"A=\xff\n", "not UTF-8"),
    ],
    ids=["no name", "open quote", "not UTF-8"],
)
def test_what_cannot_be_understood_is_named_by_its_line(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint) as caught:
        _read(tmp_path, content)
    assert "secret" not in str(caught.value)


def _read(folder: Path, content: bytes) -> dict[str, str]:
    (folder / ".env").write_bytes(content)
    variables: dict[str, str] = {}
    read_env_file(folder / ".env", variables)
    return variables


def test_the_example_shows_every_setting_with_its_default() -> None:
    """What is commented out there can be taken as it is: it changes nothing."""
    text = (ROOT / ".env.example").read_text()
    shown = {name: value.partition("  #")[0] for name, value in re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE)}
    source = (ROOT / "opensvm" / "settings.py").read_text()
    asked = set(re.findall(r'(?:env\.\w+|_cooldown)\(\s*"([A-Z_]+)"', source))
    assert len(asked) > 20
    assert asked - {"OPENSVM_SANDBOX", "OPENSVM_TIME_SCALE"} <= set(shown)  # set by the sandbox and by tests alone
    assert {name: shown[name] for name in DEFAULTS} == DEFAULTS
