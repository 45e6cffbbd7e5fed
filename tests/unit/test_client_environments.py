"""The environments of the clients' tests: what can't be had is said in one line, and nothing half-made is taken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.acceptance.clients import environments
from tests.acceptance.clients.environments import NodeClient, PythonClient, Unavailable
from tests.acceptance.clients.record import Record, table


def test_without_node_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="there is no node on this machine"):
        NodeClient("@anthropic-ai/sdk", "1.12.0").prepare()


def test_an_installer_that_fails_is_quoted_in_one_line() -> None:
    script = "import sys; print('looking', file=sys.stderr); sys.exit('no such registry')"
    with pytest.raises(Unavailable, match=r"^could not be installed: no such registry$"):
        environments._run([sys.executable, "-c", script])


def test_an_environment_that_was_not_finished_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(environments, "CACHE", tmp_path)
    monkeypatch.setattr(environments, "_run", ran.append)
    client = PythonClient("anthropic", "9.9.9")
    (tmp_path / "python-anthropic-9.9.9").mkdir()
    client.prepare()
    client.prepare()
    assert len(ran) == 2  # a venv and an install, once


def test_versions_that_cover_the_same_share_a_row() -> None:
    covered = {"b": {"1": ["a_turn"], "2": ["a_turn"], "3": ["a_turn", "more"]}, "a": {"1": ["x"]}}
    assert table(covered).splitlines()[2:] == ["| a | 1 | x |", "| b | 1, 2 | a turn |", "| b | 3 | a turn, more |"]


def test_what_failed_in_one_variant_is_not_covered() -> None:
    record = Record()
    for scenario, passed in (("errors", True), ("errors", False), ("errors", True), ("a_turn", True), ("a_turn", True)):
        record.note("sdk", "1", scenario, passed=passed)
    assert record.covered == {"sdk": {"1": ["a_turn"]}}
