"""Which processes a role consists of, and how each is started. Pure."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opensvm.serve.addresses import Address

LAUNCHER = Path(__file__).with_name("child.py")
ROLES = ("web", "worker", "beat", "all")
SECRET_VARIABLES = (
    "OPENROUTER_API_KEY",
    "OPENROUTER_API_KEYS",
    "DJANGO_SUPERUSER_PASSWORD",
    "DJANGO_SUPERUSER_USERNAME",
    "DJANGO_SUPERUSER_EMAIL",
)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A module to run as a process. With an address it counts as up when `path` answers 200 there."""

    role: str
    module: str
    arguments: tuple[str, ...] = ()
    address: Address | None = None
    path: str = ""  # empty: a connection is enough
    stops_last: bool = False
    renews: bool = False  # at SIGHUP it replaces its own processes one after the other, without losing a request
    shares_stdout: bool = False  # it writes nothing but log lines there; of the others, other text is sorted out
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(LAUNCHER), str(os.getpid()), self.module, *self.arguments]


def specs_for(role: str, *, address: Address) -> tuple[ChildSpec, ...]:
    """The processes of `role`; `address` is where the web process listens."""
    specs = (web_spec(address), worker_spec(), beat_spec())
    return tuple(spec for spec in specs if role in ("all", spec.role))


def web_spec(address: Address) -> ChildSpec:
    return ChildSpec("web", "opensvm.serve.web", address=address, path="/healthz", shares_stdout=True, renews=True)


def worker_spec() -> ChildSpec:
    arguments = ("--quiet", "-A", "opensvm.celery", "worker", "--pool", "threads", "--concurrency", "2")
    without = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    quiet = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
    return ChildSpec("worker", "celery", (*arguments, "--loglevel", "WARNING", *without), environment=quiet)


def beat_spec() -> ChildSpec:
    arguments = ("--quiet", "-A", "opensvm.celery", "beat", "--pidfile", "", "--loglevel", "WARNING")
    return ChildSpec("beat", "celery", arguments)


def upstream_spec(address: Address, keys_file: Path) -> ChildSpec:
    """The sandbox upstream; it stops last, because open answers come from it."""
    arguments = ("--host", address.host, "--port", str(address.port), "--keys-file", str(keys_file))
    return ChildSpec("upstream", "opensvm.sandbox", arguments, address=address, stops_last=True)


def child_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What the children get: everything but the secrets that only the one-shot steps need."""
    kept = {name: value for name, value in variables.items() if name not in SECRET_VARIABLES}
    ours = {"DJANGO_SETTINGS_MODULE": "opensvm.settings", "OPENSVM_SUPERVISED": "1", "PYTHONUNBUFFERED": "1"}
    return kept | ours
