"""`keys list|add|check|disable|enable|rotate|retire`: the admin's actions on OpenRouter keys, for scripts.

Exit codes: 0 all done; 1 something was refused; 2 a wrong command line; 3 OpenRouter refuses a key; 4 it does not
answer; 5 the time to wait was over.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from keys.admin.display import dollars
from keys.admin.pool import view_keys
from keys.errors import KeysError
from keys.management.arguments import find_key, read_secret
from keys.management.progress import Progress
from keys.management.refusals import refusals_as_command_errors
from keys.management.tables import in_columns
from keys.models import KeyState, OpenRouterKey
from keys.services import keys, rotation
from keys.services.accounts import get_or_create_account
from keys.services.audit import COMMAND_LINE
from keys.services.checks import CheckOutcome, CheckResult, check_key
from keys.services.master_keys import verify_keyring
from keys.services.rotation import Rotation, RotationPhase, find_rotation

REFUSED, NO_ANSWER, TOO_LATE = 3, 4, 5
BAD_CHECKS = {CheckOutcome.REFUSED: REFUSED, CheckOutcome.NO_ANSWER: NO_ANSWER}
POLL_SECONDS = 0.5
DEFAULT_WAIT_SECONDS = 600.0
STATE_CHANGES: dict[str, tuple[str, Callable[..., OpenRouterKey]]] = {
    "disable": ("Disabled", keys.disable_key),
    "enable": ("Enabled", keys.enable_key),
    "retire": ("Retired", keys.retire_key),
}
HEADING = ("NAME", "KEY", "STATE", "WHY", "ACCOUNT", "TIER", "REQUESTS", "COST TODAY")


class Command(BaseCommand):
    help = "Work with the OpenRouter keys of the pool. A key is read from stdin or a file, never from an argument."

    def add_arguments(self, parser: CommandParser) -> None:
        whats = parser.add_subparsers(dest="what", required=True, metavar="list|add|check|disable|enable|rotate|retire")
        listing = whats.add_parser("list", help="show the keys, with why each is used or not")
        listing.add_argument("--state", choices=KeyState.values)
        listing.add_argument("--json", action="store_true", dest="as_json")
        add = whats.add_parser("add", help="add a key and check it")
        add.add_argument("name")
        add.add_argument("file", nargs="?", help="a file, or - for stdin")
        add.add_argument("--account", metavar="NAME", help="the account that it bills to; made if it is new")
        add.add_argument("--tier", type=int, default=1)
        add.add_argument("--note", default="")
        check = whats.add_parser("check", help="ask OpenRouter about keys; all but the retired if none is named")
        check.add_argument("names", nargs="*", metavar="NAME")
        for what in ("disable", "enable"):
            whats.add_parser(what, help=f"{what} keys").add_argument("names", nargs="+", metavar="NAME")
        retire = whats.add_parser("retire", help="erase the secrets of keys for ever")
        retire.add_argument("names", nargs="+", metavar="NAME")
        retire.add_argument("--yes", action="store_true", help="do not ask")
        _add_rotate(whats.add_parser("rotate", help="replace a key by a new one, without a failed request"))

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        with refusals_as_command_errors():
            if what in STATE_CHANGES:
                self._change(what, options["names"], is_sure=options.get("yes", True))
            else:
                getattr(self, f"_{what}")(**options)

    # -- one command each --------------------------------------------------------------------------------------------
    def _list(self, *, state: str | None, as_json: bool, **options: Any) -> None:
        found = OpenRouterKey.objects.select_related("account").defer("secret").order_by("created_at", "pk")
        rows = list(found.filter(state=state) if state else found)
        lines = list(_described(rows))
        if as_json:
            self.stdout.write(json.dumps(lines, indent=2, ensure_ascii=False))
            return
        if not rows:
            self.stderr.write("There is no key: add one with `keys add NAME`." if state is None else "There is none.")
        table = [[str(line[column]) for column in _COLUMNS] for line in lines]
        for text in in_columns(HEADING, table, right=(5, 6, 7)) if rows else ():
            self.stdout.write(text)

    def _add(self, *, name: str, file: str | None, account: str | None, tier: int, note: str, **options: Any) -> None:
        verify_keyring()
        secret = read_secret(file)
        owner = get_or_create_account(account, actor=COMMAND_LINE) if account else None
        key = keys.add_key(actor=COMMAND_LINE, secret=secret, name=name, account=owner, tier=tier, note=note)
        self.stdout.write(f"Added {key}.")
        self._check_all([key])

    def _check(self, *, names: list[str], **options: Any) -> None:
        everything = OpenRouterKey.objects.exclude(state=KeyState.RETIRED).defer("secret")
        self._check_all([find_key(name) for name in names] or list(everything.order_by("created_at", "pk")))

    def _change(self, what: str, names: list[str], *, is_sure: bool) -> None:
        chosen = [find_key(name) for name in names]
        if not is_sure and not self._confirms(f"Erase {', '.join(map(str, chosen))} for ever?"):
            raise CommandError("Nothing was retired: say yes, or use --yes.")
        done, service = STATE_CHANGES[what]
        refused = 0
        for key in chosen:
            try:
                self.stdout.write(f"{done} {service(key.pk, actor=COMMAND_LINE)}.")
            except KeysError as exc:
                refused += 1
                self.stderr.write(str(exc))
        if refused:
            raise CommandError(f"{refused} of {len(chosen)} were refused.")

    def _rotate(
        self, *, name: str, file: str | None, new_name: str, cancel: bool, finish: bool, timeout: float, **options: Any
    ) -> None:
        key = find_key(name)
        if cancel:
            ended = rotation.cancel_rotation(key.pk, actor=COMMAND_LINE)
            self.stdout.write(f"Cancelled: {ended.old} goes on, {ended.new} is disabled.")
            return
        under_way = find_rotation(key.pk)
        if under_way is None:
            verify_keyring()
            secret = read_secret(file)
            under_way = rotation.start_rotation(key.pk, actor=COMMAND_LINE, secret=secret, name=new_name)
            self.stdout.write(f"Stored {under_way.new}, which takes the place of {under_way.old}.")
        if under_way.phase is RotationPhase.CHECKING:
            self._check_all([under_way.new])
            under_way = _again(under_way)
        if not under_way.is_successor_serving:
            why = f"{under_way.new} does not serve, it is {under_way.new.state}: check it again, or use --cancel."
            raise CommandError(why, returncode=REFUSED)
        if finish:
            self._finish(under_way, timeout)
        else:
            self.stdout.write(f"Both serve. Go on with: keys rotate {under_way.old.name} --finish")

    # -- steps -------------------------------------------------------------------------------------------------------
    def _check_all(self, chosen: list[OpenRouterKey]) -> None:
        """Exit code 3 if OpenRouter refuses one, 4 if it did not answer about one."""
        progress = Progress(self.stderr, "Checking", len(chosen))
        results: list[tuple[OpenRouterKey, CheckResult]] = []
        for number, key in enumerate(chosen):
            progress.show(number, key.name)
            results.append((key, check_key(key.pk, actor=COMMAND_LINE)))
        progress.end()
        for key, result in results:
            self.stdout.write(f"{key}: {result.state}. {result.message}")
        bad = [BAD_CHECKS[result.outcome] for _, result in results if result.outcome in BAD_CHECKS]
        if bad:
            raise CommandError(f"{len(bad)} of {len(chosen)} checks were not good.", returncode=min(bad))

    def _finish(self, under_way: Rotation, timeout: float) -> None:
        old = under_way.old
        if old.state == KeyState.ACTIVE:
            rotation.drain_key(old.pk, actor=COMMAND_LINE)
            self.stdout.write(f"{old} gets no new requests.")
        first = left = rotation.open_requests_of(old.pk)
        progress, stop_at = Progress(self.stderr, "Draining", first), time.monotonic() + timeout
        while left:
            progress.show(max(first - left, 0), f"{left:,} left")
            if time.monotonic() >= stop_at:
                progress.end()
                raise CommandError(
                    f"{old} still answers {left:,} requests. It drains on, and the background tasks retire it.",
                    returncode=TOO_LATE,
                )
            time.sleep(POLL_SECONDS)
            left = rotation.open_requests_of(old.pk)
        progress.end()
        if not _is_retired(old):  # the background task may be faster
            rotation.finish_rotation(old.pk, actor=COMMAND_LINE)
        self.stdout.write(f"Retired {old}; {under_way.new} has its place.")

    def _confirms(self, question: str) -> bool:
        if not sys.stdin.isatty():
            return False
        self.stderr.write(f"{question} [y/N] ", ending="")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


_COLUMNS = ("name", "key", "state", "why", "account", "tier", "requests", "cost_today")


def _add_rotate(parser: Any) -> None:
    parser.add_argument("name", metavar="NAME", help="the key to replace")
    parser.add_argument("file", nargs="?", help="the successor: a file, or - for stdin")
    parser.add_argument("--new-name", default="", help="the successor's name; else NAME and a number")
    parser.add_argument("--finish", action="store_true", help="drain the old key too, wait, and retire it")
    parser.add_argument("--cancel", action="store_true", help="give the rotation up")
    parser.add_argument("--timeout", type=float, default=DEFAULT_WAIT_SECONDS, help="seconds to wait for --finish")


def _described(rows: list[OpenRouterKey]) -> Iterable[dict[str, Any]]:
    """A fixed number of queries for any number of keys."""
    views = view_keys(rows)
    for key in rows:
        view = views[key.pk]
        yield {
            "name": key.name,
            "key": key.tail,
            "state": view.standing.word,
            "why": view.standing.reason,
            "account": key.account.name if key.account else "",
            "tier": key.tier,
            "requests": key.selections,
            "cost_today": dollars(view.today.cost_nano),
            "id": str(key.pk),
        }


def _again(under_way: Rotation) -> Rotation:
    """As it is now. A check may have made the successor active."""
    found = find_rotation(under_way.old.pk)
    if found is None:
        raise CommandError(f"The rotation of {under_way.old} was ended by someone else.")
    return found


def _is_retired(key: OpenRouterKey) -> bool:
    return OpenRouterKey.objects.filter(pk=key.pk, state=KeyState.RETIRED).exists()
