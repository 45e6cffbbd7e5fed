"""How the admin writes money and times."""

from __future__ import annotations

import datetime as dt

import pytest

from keys.admin.display import clock, cost, countdown, decimals_of, dollars, relative, shortened, span, stamp

NOW = dt.datetime(2026, 5, 4, 14, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("nano", "words"),
    [
        (None, "unknown"),
        (0, "$0.00"),
        (1, "$0.000000001"),
        (550_000, "$0.00055"),
        (1_000_000_000, "$1.00"),
        (1_234_567_890_123_456_789, "$1,234,567,890.123456789"),
        (-1_500_000_000, "-$1.50"),
    ],
)
def test_dollars_have_every_digit_and_at_least_two(nano: int | None, words: str) -> None:
    assert dollars(nano) == words


def test_the_sums_of_a_column_have_as_many_decimals() -> None:
    column = [1_500_000_000, 12_345_678, 0]

    shown = [dollars(nano, decimals=decimals_of(column)) for nano in column]

    assert shown == ["$1.500000000", "$0.012345678", "$0.000000000"]
    assert decimals_of([]) == 2


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00 left"), (0.2, "0:01 left"), (299, "4:59 left"), (3_725, "1:02:05 left")]
)
def test_a_countdown_is_written_as_the_browser_goes_on_with_it(seconds: float, words: str) -> None:
    assert countdown(NOW + dt.timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("text", "words"), [("short", "short"), ("a" * 60, "a" * 60), ("abc " * 30, "abc " * 14 + "abc…")]
)
def test_a_long_text_is_cut_with_a_sign(text: str, words: str) -> None:
    assert shortened(text) == words


def test_a_sum_says_how_many_of_its_costs_are_unknown() -> None:
    assert cost(10_000_000, 1_200) == "$0.01 + 1,200 unknown"
    assert cost(10_000_000, 0) == "$0.01"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (239, "4 min"), (3_600, "1 h"), (200_000, "2 d")],
)
def test_a_span_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_moment_is_told_from_now() -> None:
    assert relative(NOW + dt.timedelta(minutes=4), NOW) == "in 4 min"
    assert relative(NOW - dt.timedelta(hours=3), NOW) == "3 h ago"


def test_a_moment_of_today_needs_no_date_and_always_has_its_zone() -> None:
    assert clock(NOW, NOW) == "14:00:00 UTC"
    assert clock(NOW + dt.timedelta(days=1), NOW) == "2026-05-05 14:00 UTC"
    assert "14:00:00 UTC" in stamp(NOW)
    assert stamp(None, missing="never") == "never"
