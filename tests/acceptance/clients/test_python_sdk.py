"""The official Python SDK, three versions of it, each in a process of its own: see `python_scenarios.py`."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.conftest import Target
from tests.acceptance.clients.environments import PythonClient, Unavailable
from tests.acceptance.clients.record import Record

SCRIPT = Path(__file__).parent / "python_scenarios.py"
CLIENTS = [PythonClient("anthropic", version) for version in ("0.49.0", "1.17.0", "2.12.0")]
PREFIX = "scenario_"
SCENARIOS = [
    node.name.removeprefix(PREFIX)
    for node in ast.parse(SCRIPT.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith(PREFIX)
]
RUN_SECONDS = 120.0


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.version)
def outcome(request: pytest.FixtureRequest, target: Target) -> tuple[PythonClient, dict[str, Any]]:
    """The report of one version."""
    client: PythonClient = request.param
    try:
        python = client.prepare()
    except Unavailable as exc:
        pytest.skip(f"{client.name} {client.version}: {exc}")
    target.script()
    before = target.arrived()
    command = [str(python), str(SCRIPT), target.url, target.client_key, target.upstream.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    return client, {**json.loads(done.stdout.splitlines()[-1]), "before": before}


def test_it_is_the_version_that_was_meant(outcome: tuple[PythonClient, dict[str, Any]]) -> None:
    client, report = outcome
    assert report["version"] == client.version
    assert list(report["results"]) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(outcome: tuple[PythonClient, dict[str, Any]], scenario: str, record: Record) -> None:
    client, report = outcome
    assert not report["results"][scenario]["problem"], report["results"][scenario]["problem"]
    record.note(client.name, client.version, scenario)


def test_each_retry_reached_the_service(
    outcome: tuple[PythonClient, dict[str, Any]], target: Target, record: Record
) -> None:
    """Counted by the service's own log, not only where the SDK sends."""
    client, report = outcome
    assert len(report["reached"]) > 10
    target.check_arrivals(report["reached"], since=report["before"])
    record.note(client.name, client.version, "retries_counted_at_the_service")
