"""The official TypeScript SDK, old and new, each in a process of its own: see `typescript_scenarios.mjs`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clients.conftest import Target
from tests.acceptance.clients.environments import NodeClient, Unavailable
from tests.acceptance.clients.record import Record

SCRIPT = Path(__file__).parent / "typescript_scenarios.mjs"
CLIENTS = [NodeClient("@anthropic-ai/sdk", version) for version in ("0.39.0", "1.12.0")]
_TABLE = SCRIPT.read_text().partition("const scenarios = {")[2].partition("\n};")[0]
SCENARIOS = re.findall(r"^  (?:async )?(\w+)(?:\(\) \{|: \(\) =>)", _TABLE, re.MULTILINE)
RUN_SECONDS = 120.0


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.version)
def outcome(request: pytest.FixtureRequest, target: Target) -> tuple[NodeClient, dict[str, Any]]:
    """The report of one version."""
    client: NodeClient = request.param
    try:
        folder = client.prepare()
    except Unavailable as exc:
        pytest.skip(f"{client.name} {client.version}: {exc}")
    target.script()
    before = target.arrived()
    command = ["node", str(SCRIPT), str(folder), target.url, target.client_key, target.upstream.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    return client, {**json.loads(done.stdout.splitlines()[-1]), "before": before}


def test_it_is_the_version_that_was_meant(outcome: tuple[NodeClient, dict[str, Any]]) -> None:
    client, report = outcome
    assert report["version"] == client.version
    assert list(report["results"]) == SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(outcome: tuple[NodeClient, dict[str, Any]], scenario: str, record: Record) -> None:
    client, report = outcome
    assert not report["results"][scenario]["problem"], report["results"][scenario]["problem"]
    record.note(client.name, client.version, scenario)


def test_each_retry_reached_the_service(
    outcome: tuple[NodeClient, dict[str, Any]], target: Target, record: Record
) -> None:
    """Counted by the service's own log, not only where the SDK sends."""
    client, report = outcome
    assert len(report["reached"]) > 10
    target.check_arrivals(report["reached"], since=report["before"])
    record.note(client.name, client.version, "retries_counted_at_the_service")
