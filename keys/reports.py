"""The report of usage and cost: a period by key, account, client, model, day or hour, beside the period before it.

The admin's page, its CSV, `GET /api/usage` and `manage.py usage` all show what `read_report` gives.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from keys.models import Account, OpenRouterKey
from keys.services.rotation import lineage_of
from keys.spans import DAY, HOUR, MOMENT, Span
from keys.usage import EVERYTHING, Part, Usage, Where, labels_of, sum_usage

Group = Literal["key", "account", "client", "model", "day", "hour"]
GROUPS: tuple[Group, ...] = get_args(Group)
TIMES = ("day", "hour")
MOST_DAYS = 366
MOST_DAYS_BY_HOUR = 31
NO_ACCOUNT = "no account"
NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about. UTC days, both included. `joined`: a key and its successors are one line."""

    since: dt.date
    until: dt.date
    group: Group = "key"
    key: uuid.UUID | None = None
    account: uuid.UUID | None = None
    client: uuid.UUID | None = None
    model: str = ""
    joined: bool = False

    @property
    def period(self) -> Span:
        return Span.of_days(self.since, self.until)

    @property
    def before(self) -> Question:
        """The period before: just as long."""
        length = self.until - self.since + DAY
        return replace(self, since=self.since - length, until=self.until - length)

    def most_days(self) -> int:
        return MOST_DAYS_BY_HOUR if self.group == "hour" else MOST_DAYS


@dataclass(frozen=True, slots=True)
class Line:
    """`target`: an id, a model's name, a day, or the start of an hour; None where there was no key or no account."""

    target: Any
    label: str
    usage: Usage
    before: Usage = NO_USAGE


@dataclass(frozen=True, slots=True)
class Report:
    """Lines in the order of time, or the dearest first."""

    question: Question
    lines: list[Line]
    totals: Usage
    before: Usage


def read_report(question: Question) -> Report:
    """A fixed number of queries; fourteen at most."""
    keys = _Keys.read() if question.group in ("key", "account") or question.key or question.account else _Keys()
    now, before = (_sums(each, keys) for each in (question, question.before))
    if question.group in TIMES:
        lines = list(_over_time(question, now, before))
    else:
        lines = list(_by_target(question, now, before, keys))
    return Report(question, lines, sum(now.values(), Usage()), sum(before.values(), Usage()))


def change_of(now: int, before: int) -> float | None:
    """By how much of `before` it has grown: 0.5 is by half. None if there was nothing before."""
    return None if before == 0 else (now - before) / before


@dataclass(frozen=True, slots=True)
class _Keys:
    """Which account each key is of, and of which key it is a successor."""

    accounts: Mapping[uuid.UUID, uuid.UUID | None] | None = None
    firsts: Mapping[uuid.UUID, uuid.UUID] | None = None

    @classmethod
    def read(cls) -> _Keys:
        accounts = dict(OpenRouterKey.objects.values_list("pk", "account_id"))
        return cls(accounts, lineage_of(accounts))

    def where(self, question: Question) -> Where:
        wanted: set[uuid.UUID] | None = None
        if question.account is not None:
            wanted = {key for key, account in (self.accounts or {}).items() if account == question.account}
        if question.key is not None:
            of_line = self._line_of(question.key) if question.joined else {question.key}
            wanted = of_line if wanted is None else wanted & of_line
        if wanted is None and question.client is None and not question.model:
            return EVERYTHING
        keys = None if wanted is None else tuple(sorted(wanted))
        return Where(keys=keys, client=question.client, model=question.model or None)

    def _line_of(self, key: uuid.UUID) -> set[uuid.UUID]:
        firsts = self.firsts or {}
        first = firsts.get(key, key)
        return {key} | {other for other, found in firsts.items() if found == first}

    def target(self, question: Question) -> Callable[[Any], Any]:
        """From what is summed to what is shown."""
        if question.group == "account":
            return lambda key: (self.accounts or {}).get(key)
        if question.group == "key" and question.joined:
            return lambda key: (self.firsts or {}).get(key, key)
        return lambda target: target


def _sums(question: Question, keys: _Keys) -> dict[Any, Usage]:
    part: Part = "key" if question.group == "account" else question.group
    target = keys.target(question)
    sums: dict[Any, Usage] = defaultdict(Usage)
    for (found,), usage in sum_usage(question.period, part, where=keys.where(question)).items():
        sums[target(found)] += usage
    return sums


def _over_time(question: Question, now: dict[Any, Usage], before: dict[Any, Usage]) -> Iterator[Line]:
    """Every day or hour, also those without a request; beside each the one of the period before."""
    shift = question.since - question.before.since
    for moment in _moments(question):
        label = moment.strftime("%Y-%m-%d %H:00") if question.group == "hour" else moment.isoformat()
        yield Line(moment, label, now.get(moment, NO_USAGE), before.get(moment - shift, NO_USAGE))


def _moments(question: Question) -> Iterator[Any]:
    if question.group == "day":
        yield from question.period.days()
        return
    hour = question.period.start
    while hour <= question.period.end - MOMENT:
        yield hour
        hour += HOUR


def _by_target(question: Question, now: dict[Any, Usage], before: dict[Any, Usage], keys: _Keys) -> Iterator[Line]:
    targets = {*now, *before}
    labels = _labels(question, targets, keys)
    lines = [
        Line(target, labels[target], now.get(target, NO_USAGE), before.get(target, NO_USAGE)) for target in targets
    ]
    yield from sorted(lines, key=lambda line: (-line.usage.cost_nano, -line.usage.requests, line.label))


def _labels(question: Question, targets: set[Any], keys: _Keys) -> dict[Any, str]:
    if question.group == "account":
        names = dict(Account.objects.values_list("pk", "name"))
        return {target: names.get(target, str(target)) if target else NO_ACCOUNT for target in targets}
    assert question.group in ("key", "client", "model")
    labels = labels_of(question.group, targets)
    if question.group == "key" and question.joined:
        members = Counter((keys.firsts or {}).values())
        labels |= {key: f"{labels[key]} and {members[key] - 1} after it" for key in targets if members[key] > 1}
    return labels
