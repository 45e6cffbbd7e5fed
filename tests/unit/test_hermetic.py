"""The tests can't reach anything but this machine, and nothing of the caller's environment reaches them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from django.conf import settings

from tests import hermetic


def test_a_connection_to_another_machine_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(hermetic.RemoteCallError, match="only loopback"):
        sock.connect(("192.0.2.1", 80))


def test_a_look_up_of_another_machine_is_refused() -> None:
    with pytest.raises(hermetic.RemoteCallError, match="looks up openrouter"):
        socket.getaddrinfo("openrouter.ai", 443)


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        assert sock.getpeername() == server.getsockname()


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        (None, True),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
    ids=str,
)
def test_what_is_this_machine(host: str | None, local: bool) -> None:
    assert hermetic.is_local(host) is local


def test_the_callers_settings_do_not_reach_the_tests(tmp_path: Path) -> None:
    variables = {
        "OPENROUTER_API_KEY": "sk-or-v1-test-planted",
        "OPENSVM_PORT": "1",
        "DATABASE_URL": "postgres://nowhere/db",
        "HTTPS_PROXY": "http://192.0.2.1:3128",
        "PATH": "/bin",
    }
    hermetic.enter(variables, tmp_path)
    assert set(variables) == {"OPENSVM_VAR_DIR", "OPENSVM_LOG_FILE", "OPENSVM_ENVIRONMENT", "PATH"}
    assert not [name for name in os.environ if name.startswith("OPENROUTER_")]
    assert Path(settings.OPENSVM_VAR_DIR).name.startswith("opensvm-tests-")
