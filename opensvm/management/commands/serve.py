"""`manage.py serve`: runs the service; `bin/serve` is the same with a .venv made first."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from opensvm.serve.children import ROLES
from opensvm.serve.service import Service


class Command(BaseCommand):
    help = "Run the service: web processes, the Celery worker and its schedule, until Ctrl-C or SIGTERM."
    requires_system_checks = ()  # each process that needs Django checks itself; a start shall be quick

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--role", choices=ROLES, default="all", help="Run only a part, for several machines.")
        parser.add_argument(
            "--sandbox",
            action="store_true",
            help="Run in var/sandbox against an imitation of OpenRouter. Nothing is asked of the real one.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # --sandbox has had its effect: `opensvm.command_line` changed the environment before the settings were read.
        Service(role=options["role"]).run()
