"""What an operator should look at, in sentences with links. Pure but for the links."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keys.admin.display import span
from keys.admin.pool import KeyView
from keys.admin.rows import list_of, page_of
from keys.models import KeyState, OpenRouterKey, UsageHour
from keys.traffic import Traffic
from keys.usage import Usage

MOST_NAMED = 5
SOON = dt.timedelta(days=7)
OLD = dt.timedelta(days=1)  # a cost that is unknown for longer than that is worth a look


@dataclass(frozen=True, slots=True)
class Attention:
    """One line: what it is, which rows it is about (name, link), and how many more there are."""

    tone: str
    text: str
    rows: tuple[tuple[str, str], ...] = ()
    more: int = 0


def attention_of(
    keys: Sequence[OpenRouterKey],
    views: Mapping[uuid.UUID, KeyView],
    hours: Mapping[dt.datetime, Traffic] | None,
    now: dt.datetime,
) -> list[Attention]:
    """Worst first; empty when all is well. `hours`: the traffic of the last days, for who may see it."""
    in_use = [key for key in keys if key.state != KeyState.DISABLED]
    benched = [key for key in keys if key.state == KeyState.ACTIVE and views[key.pk].blocking.is_blocked]
    invalid = [key for key in keys if key.state == KeyState.INVALID]
    unchecked = [key for key in in_use if key.check_error and key.state != KeyState.INVALID]
    due = [key for key in in_use if key.rotates_at and key.rotates_at <= now]
    elsewhere = [key for key in keys if key.elsewhere]
    soon = [key for key in in_use if key.rotates_at and now < key.rotates_at <= now + SOON]
    lines = [
        _about("bad", "{n} refused by OpenRouter (invalid)", invalid),
        _about("wait", "{n} benched", benched),
        _about("wait", "The last check of {n} failed", unchecked),
        _about("wait", "OpenRouter bills another account than the one given here for {n}", elsewhere),
        _about("wait", "{n} due for rotation: 90 days are over", due),
        _about("off", f"{{n}} due for rotation within {span(SOON.total_seconds())}", soon),
        _unknown_costs(hours or {}, now),
    ]
    return [line for line in lines if line is not None]


def _about(tone: str, text: str, keys: Sequence[OpenRouterKey]) -> Attention | None:
    if not keys:
        return None
    count = "1 key" if len(keys) == 1 else f"{len(keys):,} keys"
    rows = tuple((key.name, page_of(key)) for key in keys[:MOST_NAMED])
    return Attention(tone, text.format(n=count), rows, more=len(keys) - len(rows))


def _unknown_costs(hours: Mapping[dt.datetime, Traffic], now: dt.datetime) -> Attention | None:
    old = _sum(traffic.usage for hour, traffic in hours.items() if hour < now - OLD).unknown_costs
    new = _sum(traffic.usage for hour, traffic in hours.items() if hour >= now - OLD).unknown_costs
    if not old and not new:
        return None
    report = list_of(UsageHour, f"since={(now - dt.timedelta(days=29)).date()}&until={now.date()}&group=day")
    text = f"{old + new:,} requests of the last 30 days without a known cost"
    aged = f", {old:,} of them older than a day" if old else "; they are being asked for"
    return Attention("wait" if old else "off", text + aged, (("report", report),))


def _sum(usages: Iterable[Usage]) -> Usage:
    return sum(usages, Usage())
