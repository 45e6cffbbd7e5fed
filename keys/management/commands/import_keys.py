"""`import_keys [FILE|-]`: OpenRouter keys from a file, stdin or the environment. Never prints a key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from keys.management.progress import Progress
from keys.management.refusals import refusals_as_command_errors
from keys.services.accounts import get_or_create_account
from keys.services.audit import COMMAND_LINE
from keys.services.environment_keys import NAME_PATTERN, VARIABLES, read_environment
from keys.services.key_imports import ImportReport, KeyEntry, check_pattern, import_entries, read_entries
from keys.services.master_keys import verify_keyring

MAX_BYTES = 16 * 1024 * 1024


class Command(BaseCommand):
    help = "Import OpenRouter keys, separated by commas or white space. Without FILE: from " + " and ".join(VARIABLES)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", metavar="FILE", help="a file, or - for stdin")
        parser.add_argument("--account", metavar="NAME", help="the account that the keys bill to; made if it is new")
        parser.add_argument("--name-pattern", metavar="PATTERN", help="names of the new keys, as prod-{n}")

    def handle(
        self, *args: Any, file: str | None, account: str | None, name_pattern: str | None, **options: Any
    ) -> None:
        pattern = name_pattern or ("key-{n}" if file else NAME_PATTERN)
        with refusals_as_command_errors():
            check_pattern(pattern)
            verify_keyring()
            entries = _read(file)
            report = import_entries(
                Progress(self.stderr, "Importing", len(entries)).over(entries),
                actor=COMMAND_LINE,
                name_pattern=pattern,
                account=get_or_create_account(account, actor=COMMAND_LINE) if account else None,
                from_environment=file is None,
            )
        self._show(report)
        if report.refused:
            raise CommandError(
                f"{len(report.refused)} of {len(entries)} entries were refused; the others are in the pool."
            )

    def _show(self, report: ImportReport) -> None:
        for key in report.added:
            self.stdout.write(f"Added {key}.")
        for key in report.known:
            self.stdout.write(f"Skipped {key}: it is in the pool already, {key.state}.")
        for place in report.refused:
            self.stdout.write(f"Refused {place}: it is not an OpenRouter key (sk-or-v1-…).")
        counts = f"{len(report.added)} added, {len(report.known)} skipped, {len(report.refused)} refused."
        self.stdout.write(counts)


def _read(file: str | None) -> list[KeyEntry]:
    if file is None:
        entries, where = read_environment(os.environ), " or ".join(VARIABLES)
    else:
        where = "stdin" if file == "-" else file
        entries = read_entries(_read_text(file), where)
    if not entries:
        raise CommandError(f"There is no key in {where}: name a file, or - for stdin, or set {VARIABLES[1]}.")
    return entries


def _read_text(file: str) -> str:
    try:
        content = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else _read_file(Path(file))
    except OSError as exc:
        raise CommandError(f"{file} can't be read: {exc.strerror}.") from exc
    if len(content) > MAX_BYTES:
        raise CommandError(f"{file} is larger than {MAX_BYTES // 1024 // 1024} MB: is it a list of keys?")
    return content.decode("utf-8-sig", "replace")


def _read_file(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)
