"""What `.env` may look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from opensvm.env_file import read_env_file
from opensvm.environment import SettingError


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
