"""The `sandbox` fixture: empty for each test, and the machine's failures that only it can play."""

from __future__ import annotations

import httpx
import pytest

from tests.sandbox import SandboxFixture


def test_a_test_starts_with_an_empty_sandbox(sandbox: SandboxFixture) -> None:
    assert sandbox.requests("") == []
    assert sandbox.ledger() == []
    assert sandbox.rules() == []
    assert sandbox.keys() == []


def test_refused_connections_come_back_on_the_same_port(sandbox: SandboxFixture) -> None:
    before = sandbox.base_url
    sandbox.refuse_connections()

    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{before}/models")

    sandbox.accept_connections()
    assert sandbox.base_url == before
    assert httpx.get(f"{before}/models").status_code == 200


def test_dropped_connections_end_under_an_idle_client(sandbox: SandboxFixture) -> None:
    with httpx.Client() as client:
        client.get(f"{sandbox.base_url}/models")
        sandbox.drop_connections()
        client.get(f"{sandbox.base_url}/models")  # httpx sees the end and connects anew

    first, second = sandbox.requests("/models")
    assert first.connection != second.connection
