"""The sandbox for tests: one server thread for the session, forgotten between tests.

`tests/conftest.py` loads it. A test asks for `sandbox`, adds its keys, scripts what goes wrong, and looks at what was
received and billed; all of that is in `opensvm.sandbox.remote.Controls`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opensvm.sandbox.remote import Controls
from opensvm.sandbox.thread import SandboxServer


class SandboxFixture(Controls):
    """The controls of the running sandbox, with what only its own process can do."""

    def __init__(self, server: SandboxServer) -> None:
        super().__init__(server.url)
        self._server = server

    @property
    def base_url(self) -> str:
        """What `OPENROUTER_BASE_URL` is set to."""
        return self._server.base_url

    @property
    def anthropic_url(self) -> str:
        """The base URL for an Anthropic SDK that talks to the sandbox directly."""
        return f"{self.url}/api"

    def refuse_connections(self) -> None:
        """Connecting fails from now on, until `accept_connections`."""
        self._server.refuse_connections()

    def accept_connections(self) -> None:
        self._server.accept_connections()

    def drop_connections(self) -> None:
        """Ends every open connection, idle or not."""
        self._server.drop_connections()


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def sandbox(sandbox_server: SandboxServer) -> Iterator[SandboxFixture]:
    """An empty sandbox: no keys, no rules, nothing received or billed."""
    sandbox_server.start_afresh()
    yield SandboxFixture(sandbox_server)
    sandbox_server.start_afresh()
