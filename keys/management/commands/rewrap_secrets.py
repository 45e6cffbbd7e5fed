"""`rewrap_secrets`: seals every stored secret with the newest master key. May be interrupted, and run while serving."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys.management.refusals import refusals_as_command_errors
from keys.services.audit import COMMAND_LINE
from keys.services.master_keys import rewrap_secrets


class Command(BaseCommand):
    help = "Seal every stored secret with the newest master key. Safe to interrupt, to repeat and to run while serving."

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_as_command_errors():
            report = rewrap_secrets(actor=COMMAND_LINE)
        self.stdout.write(f"Secrets sealed anew with master key {report.key_id}: {report.rewrapped}.")
        for sentence in report.unopened:
            self.stderr.write(sentence)
        if report.unopened:
            raise CommandError(f"Secrets that can't be opened and stay as they are, see above: {len(report.unopened)}.")
