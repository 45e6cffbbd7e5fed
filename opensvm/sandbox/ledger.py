"""What the sandbox has billed: one generation for each answer that was begun, and sums by key and day.

Tests hold the service's own ledger against it, so it follows OpenRouter's rules for answers that nobody waited for.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace

from opensvm.sandbox.catalogue import Model, Usage

NOTHING = Usage()
MAX_GENERATIONS = 50_000  # older ones are forgotten; the sums stay


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. `cost_nano` is what the key's account paid; 0 while it runs."""

    id: str
    key_hash: str
    key_name: str
    key_tail: str
    account: str
    model: str
    streamed: bool
    created_at: dt.datetime
    usage: Usage = NOTHING
    cost_nano: int = 0
    finish_reason: str = ""
    cancelled: bool = False
    settled_at: dt.datetime | None = None
    session_id: str = ""
    user: str = ""
    referer: str = ""
    user_agent: str = ""

    @property
    def finished(self) -> bool:
        return self.settled_at is not None


class Ledger:
    """Generations by id. Sums are kept by UTC day, so that usage by day, week and month is exact."""

    def __init__(self) -> None:
        self._generations: OrderedDict[str, Generation] = OrderedDict()
        self._key_days: Counter[tuple[str, dt.date]] = Counter()
        self._accounts: Counter[str] = Counter()

    def open(self, generation: Generation) -> None:
        self._generations[generation.id] = generation
        while len(self._generations) > MAX_GENERATIONS:
            self._generations.popitem(last=False)

    def settle(self, generation: Generation) -> None:
        """Enters the bill. A generation is settled once."""
        if generation.settled_at is None:
            raise ValueError(f"Generation {generation.id} is settled without a time.")
        if generation.id in self._generations:
            self._generations[generation.id] = generation
        self._key_days[generation.key_hash, generation.settled_at.date()] += generation.cost_nano
        self._accounts[generation.account] += generation.cost_nano

    def find(self, generation_id: str) -> Generation | None:
        return self._generations.get(generation_id)

    def all(self) -> list[Generation]:
        return list(self._generations.values())

    def spent_by_key(self, key_hash: str, since: dt.date | None = None) -> int:
        days = self._key_days.items()
        return sum(nano for (key, day), nano in days if key == key_hash and (since is None or day >= since))

    def spent_by_account(self, account: str) -> int:
        return self._accounts[account]


def first_day(span: str | None, today: dt.date) -> dt.date | None:
    """The first UTC day of today's day, week (from Monday) or month; None for all time."""
    match span:
        case "daily":
            return today
        case "weekly":
            return today - dt.timedelta(days=today.weekday())
        case "monthly":
            return today.replace(day=1)
    return None


@dataclass(slots=True)
class Meter:
    """Bills one generation exactly once, whole or as far as it got.

    A stream that is cut or left is billed as far as it got where the provider can cancel, else whole.
    Answers that are not streamed are always billed whole, errors and empty answers never (zero completion insurance).
    """

    ledger: Ledger
    generation: Generation
    model: Model
    usage: Usage
    cost_nano: int  # of the whole answer
    finish_reason: str
    cancellable: bool
    bill: str = ""
    settled: bool = False

    def begin(self) -> None:
        self.ledger.open(self.generation)

    def finish(self, now: dt.datetime) -> None:
        self._settle(self.usage, self.cost_nano, self.finish_reason, now, cancelled=False)

    def fail(self, output_tokens: int, now: dt.datetime) -> None:
        usage = replace(self.usage, output=output_tokens, thinking=0)
        self._settle(usage, 0, "error", now, cancelled=False)

    def end(self, output_tokens: int, now: dt.datetime, *, whole: bool) -> None:
        """The reply is over, whole or broken off after `output_tokens`. What is settled already stays so."""
        if not whole:
            self.interrupt(output_tokens, now)
        elif self.finish_reason == "error":
            self.fail(output_tokens, now)
        else:
            self.finish(now)

    def interrupt(self, output_tokens: int, now: dt.datetime) -> None:
        """The connection ended before the answer did."""
        if not (self.generation.streamed and self.cancellable):
            self._settle(self.usage, self.cost_nano, self.finish_reason, now, cancelled=True)
            return
        usage = replace(self.usage, output=output_tokens, thinking=min(self.usage.thinking, output_tokens))
        cost = self.model.cost_nano(usage) if output_tokens else 0
        self._settle(usage, cost, "", now, cancelled=True)

    def _settle(self, usage: Usage, cost_nano: int, finish: str, now: dt.datetime, *, cancelled: bool) -> None:
        if self.settled:
            return
        self.settled = True
        cost = {"all": self.cost_nano, "nothing": 0}.get(self.bill, cost_nano)
        done = replace(self.generation, usage=usage, cost_nano=cost, finish_reason=finish, cancelled=cancelled)
        self.generation = replace(done, settled_at=now)
        self.ledger.settle(self.generation)
