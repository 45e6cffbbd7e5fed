"""`create_client NAME`: a new client, whose key is printed alone on stdout, this once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from keys.management.arguments import parse_moment
from keys.management.refusals import refusals_as_command_errors
from keys.services.audit import COMMAND_LINE
from keys.services.clients import SCOPES, create_client
from keys.services.master_keys import verify_keyring


class Command(BaseCommand):
    help = "Create a client and print its key, alone, on stdout. The key is not stored and can't be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="who will use it; names are unique")
        parser.add_argument("--scope", action="append", default=[], choices=SCOPES, help="messages is always there")
        parser.add_argument("--expires", metavar="ISO", help="date or time after which it is refused; UTC if not said")

    def handle(self, *args: Any, name: str, scope: list[str], expires: str | None, **options: Any) -> None:
        with refusals_as_command_errors():
            verify_keyring()
            client_key, client = create_client(
                actor=COMMAND_LINE,
                name=name,
                scopes=scope,
                expires_at=parse_moment(expires, "--expires") if expires else None,
            )
        self.stderr.write(
            f"Created client {client.name} for {client.scopes.replace(' ', ', ')}. Its key, shown only now:"
        )
        self.stdout.write(client_key)
