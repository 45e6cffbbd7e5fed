"""`usage --by key --since 7d`: the report of usage and cost, as a table, CSV or JSON. The same numbers as the admin's.

Exit codes: 0; 1 a name that does not exist or a period that makes no sense; 2 a wrong command line.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from keys.admin.display import dollars
from keys.csv_text import csv_chunks
from keys.management.arguments import find_client, find_key, parse_day
from keys.management.tables import in_columns
from keys.models import Account
from keys.report_rows import csv_heading, csv_rows, json_of
from keys.reports import GROUPS, Question, Report, change_of, read_report
from keys.usage import Usage

NUMBERS = ("REQUESTS", "ERRORS", "TOKENS IN", "TOKENS OUT", "COST", "UNKNOWN", "BEFORE")


class Command(BaseCommand):
    help = "What was used and what it cost, by UTC days, beside the period before."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--by", choices=GROUPS, default="key", dest="group")
        parser.add_argument("--since", default="7d", metavar="DAY", help="a day, or 7d or 2w: the last so many (7d)")
        parser.add_argument("--until", metavar="DAY", help="the last day, included; today if left out")
        parser.add_argument("--key", metavar="NAME", help="only of this key")
        parser.add_argument("--account", metavar="NAME", help="only of the keys of this account")
        parser.add_argument("--client", metavar="NAME", help="only of this client")
        parser.add_argument("--model", default="", help="only of this model, as sent upstream")
        parser.add_argument("--joined", action="store_true", help="a key and its successors are one line")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--csv", action="store_true", dest="as_csv")
        kind.add_argument("--json", action="store_true", dest="as_json")

    def handle(self, *args: Any, as_csv: bool, as_json: bool, **options: Any) -> None:
        report = read_report(_question(**options))
        if as_csv:
            for chunk in csv_chunks(csv_heading(report), csv_rows(report)):
                self.stdout.write(chunk, ending="")
        elif as_json:
            self.stdout.write(json.dumps(json_of(report), indent=2, ensure_ascii=False))
        else:
            for line in _table(report):
                self.stdout.write(line)


def _question(
    *,
    group: Any,
    since: str,
    until: str | None,
    key: str | None,
    account: str | None,
    client: str | None,
    model: str,
    joined: bool,
    **options: Any,
) -> Question:
    today = timezone.now().date()
    last = parse_day(until, "--until", today) if until else today
    question = Question(
        since=parse_day(since, "--since", last),
        until=last,
        group=group,
        key=find_key(key).pk if key else None,
        account=_find_account(account).pk if account else None,
        client=find_client(client).pk if client else None,
        model=model,
        joined=joined,
    )
    if question.since > question.until:
        raise CommandError(f"The period ends before it begins: {question.since} to {question.until}.")
    if (question.until - question.since).days >= question.most_days():
        raise CommandError(f"The period has more than {question.most_days()} days, by {group}.")
    if question.since < dt.date(2000, 1, 1):
        raise CommandError("The period begins before the year 2000.")
    return question


def _find_account(name: str) -> Account:
    found = Account.objects.filter(name=name).first()
    if found is None:
        raise CommandError(f"There is no account {name!r}.")
    return found


def _table(report: Report) -> list[str]:
    question = report.question
    rows = [[line.label, *_numbers(line.usage, line.before)] for line in report.lines]
    rows.append(["total", *_numbers(report.totals, report.before)])
    heading = (f"{question.since} to {question.until}, by {question.group}", *NUMBERS)
    return in_columns(heading, rows, right=range(1, len(heading)))


def _numbers(used: Usage, before: Usage) -> list[str]:
    """The last one is by how much the cost has changed."""
    change = change_of(used.cost_nano, before.cost_nano)
    tokens_in = used.input_tokens + used.cache_read_tokens + used.cache_write_tokens
    counts = [f"{number:,}" for number in (used.requests, used.errors, tokens_in, used.output_tokens)]
    return [*counts, dollars(used.cost_nano), f"{used.unknown_costs:,}", "" if change is None else f"{change:+.0%}"]
