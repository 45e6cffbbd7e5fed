"""How facts are written on every page of the admin: times with their zone, money with its currency. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from math import ceil

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

NANO_PER_USD = 1_000_000_000
NOTHING = "–"

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def dollars(nano: int | None, *, decimals: int = 2) -> str:
    """Nano-USD in dollars: every digit that is there, at least `decimals` of a dollar's parts, thousands separated."""
    if nano is None:
        return "unknown"
    whole, _, fraction = f"{abs(Decimal(nano) / NANO_PER_USD):,.9f}".partition(".")
    return f"{'-' if nano < 0 else ''}${whole}.{fraction.rstrip('0').ljust(decimals, '0')}"


def decimals_of(nanos: Iterable[int]) -> int:
    """How many decimals the sums of a column need for all to have as many, so that they stand below each other."""
    return max((len(dollars(nano).partition(".")[2]) for nano in nanos), default=2)


def cost(nano: int, unknown: int) -> str:
    """A sum of costs, and how many of its requests have none yet."""
    return f"{dollars(nano)} + {unknown:,} unknown" if unknown else dollars(nano)


def span(seconds: float) -> str:
    """A length of time in its largest fitting unit, rounded to it."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(round(seconds), 0)} s"


def relative(moment: dt.datetime, now: dt.datetime) -> str:
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def countdown(moment: dt.datetime, now: dt.datetime) -> str:
    """As `keys/static/keys/desk.js` writes it, so that nothing moves when that begins to count."""
    seconds = max(ceil((moment - now).total_seconds()), 0)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"


def clock(moment: dt.datetime, now: dt.datetime) -> str:
    """A moment in words for a sentence; today's without the date."""
    local, today = timezone.localtime(moment), timezone.localtime(now)
    pattern = "%H:%M:%S %Z" if local.date() == today.date() else "%Y-%m-%d %H:%M %Z"
    return local.strftime(pattern)


def stamp(moment: dt.datetime | None, *, missing: str = NOTHING) -> SafeString | str:
    """A moment in a table, with its zone."""
    if moment is None:
        return missing
    local = timezone.localtime(moment)
    day, hour = local.strftime("%Y-%m-%d"), local.strftime("%H:%M:%S %Z")
    return format_html('<time datetime="{}"><span>{}</span> <span>{}</span></time>', local.isoformat(), day, hour)


def stamp_with_distance(moment: dt.datetime | None, now: dt.datetime, *, missing: str = NOTHING) -> SafeString | str:
    if moment is None:
        return missing
    return format_html('{} <span class="quiet">({})</span>', stamp(moment), relative(moment, now))


def shortened(text: str, most: int = 60) -> str:
    """For a list; the page has all of it."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def milliseconds(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,} ms"


def change(share: float | None) -> str:
    """By how much something has grown, with its sign; a dash where there was nothing before."""
    if share is None:
        return NOTHING
    return "±0 %" if abs(share) < 0.0005 else f"{share * 100:+,.1f} %".replace("-", "−")
