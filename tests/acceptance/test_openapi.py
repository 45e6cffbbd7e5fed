"""schemathesis asks the service everything that its OpenAPI document allows, and much that it does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis.checks
import schemathesis.specs.openapi.checks  # registers them

from tests.acceptance.service import Service

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
README = Path(__file__).resolve().parents[2] / "README.md"
QUICK = {"OPENROUTER_RETRY_DELAY": "10", "OPENROUTER_MAX_RETRIES": "0", "OPENSVM_WORKERS": "1"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service.sandbox(tmp_path_factory.mktemp("openapi"), QUICK, "--role", "web") as service:
        yield service


def test_no_5xx_and_no_undocumented_status(service: Service, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    urlconf = ["--urlconf", "opensvm.openapi.urls", "--format", "openapi-json"]
    service.manage("spectacular", "--validate", "--fail-on-warn", *urlconf, "--file", str(document))
    key = service.client_key("schemathesis", "--scope", "stats")
    report = tmp_path / "report.json"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", str(document), "--url", service.url),
        *("--header", f"x-api-key: {key}", "--checks", ",".join(CHECKS), "--max-time", str(SECONDS)),
        *("--phases", "examples,coverage,fuzzing", "--request-timeout", "30", "--warnings", "off", "--workers", "1"),
        *("--report-json-path", str(report), "--generation-database", ":memory:"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS * 3)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert found["operations"]["tested"] == found["operations"]["total"] == len(found["valid_rates"])
    assert [name for name, phases in found["valid_rates"].items() if not _accepted(phases)] == []


def test_every_check_is_made_or_explained() -> None:
    """The README's section on clients has a table of those that are not, each with its reason."""
    all_checks = {check.__name__ for check in schemathesis.checks.CHECKS.get_all()}
    told = README.read_text().partition("| not asked | because |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", told)) == all_checks - set(CHECKS)


def _accepted(phases: dict[str, dict[str, int]]) -> int:
    """How often an operation was asked for what it does, and not only for what it refuses."""
    return sum(rates["accepted"] for rates in phases.values())


def test_the_document_has_every_path_with_its_errors(service: Service) -> None:
    urlconf = ["--urlconf", "opensvm.openapi.urls", "--format", "openapi-json"]
    document = json.loads(service.manage("spectacular", *urlconf).stdout)
    assert set(document["paths"]) == {
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{model_id}",
        "/api/keys/stats",
        "/api/usage",
    }
    for path in document["paths"].values():
        for operation in path.values():
            assert {"200", "400", "401", "405", "500", "529"} <= set(operation["responses"])
            assert operation["summary"]
