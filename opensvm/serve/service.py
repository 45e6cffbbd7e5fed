"""The whole of `manage.py serve`, from the port check to the last child's end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from opensvm import __version__
from opensvm.logs import LineHandler
from opensvm.serve import announce, sandbox_pool
from opensvm.serve.addresses import ANYWHERE, Address, require_free
from opensvm.serve.children import ChildSpec, child_environment, specs_for, upstream_spec
from opensvm.serve.errors import ChildFailed
from opensvm.serve.sandbox import PORT_FILE
from opensvm.serve.steps import Prepared, count_active_keys, count_usable_clients, prepare
from opensvm.serve.supervisor import Supervisor

logger = logging.getLogger("opensvm.serve")


@dataclass(frozen=True, slots=True)
class Service:
    """One start of `role`."""

    role: str

    @property
    def serves_web(self) -> bool:
        return self.role in ("web", "all")

    def run(self) -> None:
        """Serve until a signal comes. Raises StartError and what `steps.prepare` raises."""
        address = Address(settings.OPENSVM_HOST, settings.OPENSVM_PORT)
        if self.serves_web:
            require_free(address)
        prepared = prepare(os.environ, on_terminal=sys.stdout.isatty())
        specs, client_key = list(specs_for(self.role, address=address)), None
        if settings.OPENSVM_SANDBOX:
            client_key = sandbox_pool.fill(Path(settings.OPENSVM_VAR_DIR))
            specs.insert(0, _upstream())
        situation = replace(self._situation(), client_key=client_key)
        self._supervise(specs, situation, prepared)

    def _supervise(self, specs: Sequence[ChildSpec], situation: announce.Situation, prepared: Prepared) -> None:
        supervisor = Supervisor(
            specs,
            environment=child_environment(os.environ),
            folder=settings.BASE_DIR,
            drain_seconds=settings.OPENSVM_DRAIN_SECONDS,
        )

        async def when_up() -> None:
            _announce(situation, prepared)

        try:
            asyncio.run(supervisor.run(when_up))
        except ChildFailed as exc:
            print("\n".join(exc.output), file=sys.stderr, flush=True)
            raise
        logger.info("stopped", extra={"event": "service.stopped", "role": self.role})

    def _situation(self) -> announce.Situation:
        return announce.Situation(
            url=settings.OPENSVM_URL,
            log_file=Path(settings.OPENSVM_LOG_FILE),
            upstream_url=settings.OPENROUTER_BASE_URL,
            environment=settings.OPENSVM_ENVIRONMENT,
            manage=Path(settings.BASE_DIR) / "manage.py",
            active_keys=count_active_keys(),
            clients=count_usable_clients(),
            timeout_seconds=settings.OPENROUTER_TIMEOUT_SECONDS,
            serves_web=self.serves_web,
            is_sandbox=settings.OPENSVM_SANDBOX,
            listens_everywhere=settings.OPENSVM_HOST in ANYWHERE,
        )


def _upstream() -> ChildSpec:
    folder = Path(settings.OPENSVM_VAR_DIR)
    where = urlsplit(settings.OPENROUTER_BASE_URL)
    (folder / PORT_FILE).write_text(f"{where.port}\n")
    return upstream_spec(Address(where.hostname or "127.0.0.1", where.port or 0), folder / sandbox_pool.KEYS_FILE)


def _announce(situation: announce.Situation, prepared: Prepared) -> None:
    status, warnings = announce.status_lines(situation), announce.warnings(situation)
    _log_to_file(status, warnings)
    if not situation.active_keys:
        logger.warning(announce.NO_KEY, extra={"event": "pool.empty"})
    lines = [f"OpenSVM key service {__version__} ({situation.environment})", *status, *warnings]
    if prepared.admin_user is not None:
        lines.append(announce.admin_user_line(prepared.admin_user))
    _say([*lines, *announce.import_lines(prepared.imported), *announce.next_lines(situation)])


def _log_to_file(status: Iterable[str], warnings: Iterable[str]) -> None:
    """Only to the file: standard output gets the same lines as plain text."""
    announced = logging.getLogger("opensvm.serve.announced")
    announced.propagate = False
    announced.handlers = [
        handler.only_file() for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)
    ]
    for line in status:
        announced.info("%s", line, extra={"event": "service.started"})
    for line in warnings:
        announced.warning("%s", line, extra={"event": "setting.doubtful"})


def _say(lines: Iterable[str]) -> None:
    with contextlib.suppress(OSError):  # whoever read our output may be gone; that is no reason to stop serving
        print("\n".join(lines), flush=True)
