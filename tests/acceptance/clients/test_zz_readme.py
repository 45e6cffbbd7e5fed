"""Last of all: the README's table of clients says what the tests of this run have covered, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.acceptance.clients import test_python_sdk, test_typescript_sdk
from tests.acceptance.clients.conftest import is_whole
from tests.acceptance.clients.record import Record, in_readme, words_of

CLAUDE_CODE = Path(__file__).with_name("test_claude_code.py")
OF_THE_MACHINE = "curl"  # in whatever version it is there
OF_EACH_SDK = "retries_counted_at_the_service"


def test_the_readme_says_what_was_covered(record: Record, pytestconfig: pytest.Config) -> None:
    """`python -m tests.acceptance.clients.record` writes the table anew after a run."""
    if not record.covered or not is_whole(pytestconfig):
        pytest.skip("not every test of a client ran")
    claimed = in_readme()
    for client, versions in record.covered.items():
        for version, scenarios in versions.items():
            told = claimed[client]
            found = next(iter(told.values())) if client == OF_THE_MACHINE else told[version]
            assert found == set(map(words_of, scenarios)), f"{client} {version}"


def _claude_code() -> tuple[set[str], set[str]]:
    """Read without being imported: without its flag the module skips itself."""
    nodes = ast.parse(CLAUDE_CODE.read_text()).body
    tests = {node.name.removeprefix("test_") for node in nodes if isinstance(node, ast.FunctionDef)}
    versions = [
        ast.literal_eval(node.value)
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION"
    ]
    return set(versions), {name for name in tests if f"def test_{name}(" in CLAUDE_CODE.read_text()}


def test_the_readme_claims_no_version_and_no_scenario_that_is_not_here() -> None:
    """Also of clients that are not asked in every run."""
    python, typescript = test_python_sdk, test_typescript_sdk
    known = {
        python.CLIENTS[0].name: ({c.version for c in python.CLIENTS}, {*python.SCENARIOS, OF_EACH_SDK}),
        typescript.CLIENTS[0].name: ({c.version for c in typescript.CLIENTS}, {*typescript.SCENARIOS, OF_EACH_SDK}),
        "Claude Code": _claude_code(),
    }
    claimed = in_readme()
    assert set(claimed) == {*known, "curl", "openai (Python)"}
    for client, (versions, scenarios) in known.items():
        assert set(claimed[client]) <= versions, client
        for told in claimed[client].values():
            assert told <= set(map(words_of, scenarios)), client
