"""A client with a key of the sandbox, and a good request body."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.sandbox import SandboxFixture


@pytest.fixture(scope="session")
def no_tls() -> ssl.SSLContext:
    """For clients that speak plain HTTP: loading the system's certificates would take 40 ms each time."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """A good body with the given changes."""

    def make(**changes: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Grüße, what is 1 + 1?"}]
        return {"model": "anthropic/claude-3.5-sonnet", "max_tokens": 1000, "messages": messages, **changes}

    return make


@pytest.fixture
def api(sandbox: SandboxFixture, no_tls: ssl.SSLContext) -> Iterator[httpx.Client]:
    """Calls with the key "alpha"."""
    key = sandbox.add_key("sk-or-v1-test-alpha", name="alpha")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=sandbox.base_url, headers=headers, timeout=5, verify=no_tls) as client:
        yield client
