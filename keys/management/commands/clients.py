"""`clients list|create|revoke|replace`: who may call us, for scripts. A new client key is alone on stdout.

Exit codes: 0 all done; 1 something was refused; 2 a wrong command line.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from keys.errors import KeysError
from keys.management.arguments import find_client, parse_length, parse_moment
from keys.management.refusals import refusals_as_command_errors
from keys.management.tables import in_columns
from keys.models import Client
from keys.services.audit import COMMAND_LINE
from keys.services.clients import SCOPES, create_client, replace_client, revoke_client
from keys.services.master_keys import verify_keyring

HEADING = ("NAME", "KEY", "STATE", "SCOPES", "LAST USED", "EXPIRES")


class Command(BaseCommand):
    help = "Work with clients. A client key is printed once, alone on stdout, and stored nowhere."

    def add_arguments(self, parser: CommandParser) -> None:
        whats = parser.add_subparsers(dest="what", required=True, metavar="list|create|revoke|replace")
        listing = whats.add_parser("list", help="show the clients")
        listing.add_argument("--json", action="store_true", dest="as_json")
        create = whats.add_parser("create", help="make a client and print its key")
        create.add_argument("name", metavar="NAME", help="who will use it; names are unique")
        create.add_argument("--scope", action="append", default=[], choices=SCOPES, help="messages is always there")
        create.add_argument("--expires", metavar="ISO", help="date or time after which it is refused; UTC if not said")
        revoke = whats.add_parser("revoke", help="refuse clients from now on")
        revoke.add_argument("names", nargs="+", metavar="NAME")
        replace = whats.add_parser("replace", help="make a new key for a client, and end the old one later")
        replace.add_argument("name", metavar="NAME")
        replace.add_argument("--grace", default="24h", metavar="LENGTH", help="how long the old key stays: 0, 30m, 7d")
        replace.add_argument("--new-name", default="", help="the new client's name; else NAME and a number")

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        with refusals_as_command_errors():
            getattr(self, f"_{what}")(**options)

    def _list(self, *, as_json: bool, **options: Any) -> None:
        lines = [_described(client) for client in Client.objects.order_by("name")]
        if as_json:
            self.stdout.write(json.dumps(lines, indent=2, ensure_ascii=False))
            return
        if not lines:
            self.stderr.write("There is no client: make one with `clients create NAME`.")
        table = [[line[column] or "never" for column in _COLUMNS] for line in lines]
        for text in in_columns(HEADING, table) if lines else ():
            self.stdout.write(text)

    def _create(self, *, name: str, scope: list[str], expires: str | None, **options: Any) -> None:
        verify_keyring()
        expires_at = parse_moment(expires, "--expires") if expires else None
        client_key, client = create_client(actor=COMMAND_LINE, name=name, scopes=scope, expires_at=expires_at)
        self.stderr.write(f"Created client {client.name}. Its key, shown only now:")
        self.stdout.write(client_key)

    def _revoke(self, *, names: list[str], **options: Any) -> None:
        chosen = [find_client(name) for name in names]
        refused = 0
        for client in chosen:
            try:
                self.stdout.write(f"Revoked {revoke_client(client.pk, actor=COMMAND_LINE)}.")
            except KeysError as exc:
                refused += 1
                self.stderr.write(str(exc))
        if refused:
            raise CommandError(f"{refused} of {len(chosen)} were refused.")

    def _replace(self, *, name: str, grace: str, new_name: str, **options: Any) -> None:
        verify_keyring()
        length = parse_length(grace, "--grace")
        client_key, new, old = replace_client(find_client(name).pk, actor=COMMAND_LINE, grace=length, name=new_name)
        ends = "is refused from now on" if old.revoked_at else f"is accepted until {old.expires_at:%Y-%m-%d %H:%M:%SZ}"
        self.stderr.write(f"{old.name} {ends}. The key of {new.name}, shown only now:")
        self.stdout.write(client_key)


_COLUMNS = ("name", "key", "state", "scopes", "last_used", "expires")


def _described(client: Client) -> dict[str, str]:
    now = timezone.now()
    state = "revoked" if client.revoked_at else "valid"
    if state == "valid" and client.expires_at is not None and client.expires_at <= now:
        state = "expired"
    return {
        "name": client.name,
        "key": client.prefix,
        "state": state,
        "scopes": client.scopes,
        "last_used": f"{client.last_used_at:%Y-%m-%d %H:%M:%SZ}" if client.last_used_at else "",
        "expires": f"{client.expires_at:%Y-%m-%d %H:%M:%SZ}" if client.expires_at else "",
        "id": str(client.pk),
    }
