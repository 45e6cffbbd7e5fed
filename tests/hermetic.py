"""What keeps the tests apart from the machine they run on: a clean environment, own folders, loopback only.

`tests/conftest.py` uses it before the settings are imported; the acceptance tests use it for the processes they start.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

ENV_FILE = Path(__file__).resolve().parent.parent / ".env"
OUR_PREFIXES = ("OPENROUTER_", "OPENSVM_", "DJANGO_", "CELERY_", "GRANIAN_")
OUR_NAMES = ("DATABASE_URL",)
PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
TEST_DATABASE_URL = "OPENSVM_TEST_DATABASE_URL"  # the PostgreSQL that `tests/run.py` hands to pytest
TEST_CLAUDE_CODE = "OPENSVM_TEST_CLAUDE_CODE"  # 1: Claude Code is a client of the tests too; it is installed from npm


class RemoteCallError(RuntimeError):
    """A test reached for something that is not on this machine."""


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` without everything that configures the service or sends its calls elsewhere.

    What a developer's own `.env` sets is blank here: an empty variable is unset, and wins over the file.
    """
    kept = {name: value for name, value in variables.items() if not _is_ours(name)}
    return dict.fromkeys(dotenv_values(ENV_FILE, interpolate=False), "") | kept


def enter(variables: MutableMapping[str, str], var_dir: Path) -> None:
    """Point the settings, which are read after this, at `var_dir` and at the test database."""
    database_url = variables.get(TEST_DATABASE_URL, "")
    for name in [name for name in variables if _is_ours(name)]:
        if name != TEST_DATABASE_URL:
            del variables[name]
    variables["OPENSVM_VAR_DIR"] = str(var_dir)
    variables["OPENSVM_LOG_FILE"] = str(var_dir / "logs" / "opensvm.log")
    variables["OPENSVM_ENVIRONMENT"] = "test"
    if database_url:
        variables["DATABASE_URL"] = database_url


def block_network() -> None:
    """Raise for every connection and name look-up that leaves this machine. Holds to the end of the process."""
    sys.addaudithook(_refuse_remote)


def _is_ours(name: str) -> bool:
    is_setting = name.startswith(OUR_PREFIXES) or name in OUR_NAMES or name in PROXY_NAMES
    return is_setting and name != TEST_CLAUDE_CODE


def _refuse_remote(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not is_local(address[0]):
            raise RemoteCallError(f"A test connects to {address[0]}: only loopback is allowed.")
    elif event == "socket.getaddrinfo" and not is_local(arguments[0]) and _address(arguments[0]) is None:
        raise RemoteCallError(f"A test looks up {arguments[0]}: only loopback is allowed.")


def is_local(host: object) -> bool:
    """Whether `host`, a name or an address, is this machine."""
    if host is None or host in {"", "localhost", b"localhost", os.uname().nodename}:
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _address(host: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.decode("ascii", "replace") if isinstance(host, bytes) else str(host))
    except ValueError:
        return None
