"""Medians, ratios, what they are judged by, and the verdict of the check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import check, criteria
from bench.errors import BenchError
from bench.figures import ratio, summarize
from bench.own_service import POSTGRES, SQLITE
from bench.peers import LITELLM, PORTKEY
from bench.results import MemoryPoint
from bench.rounds import Kind
from bench.targets import DIRECT, RELAY
from tests.unit.bench.samples import PLAIN, results, rounds


def test_a_figure_is_the_median_of_its_rounds_and_tells_how_far_they_lie_apart() -> None:
    figure = summarize(rounds(SQLITE, 900.0, 1000.0, 1200.0))[SQLITE, Kind.REQUESTS, 32]
    assert (figure.per_second, figure.spread, figure.rounds) == (1000.0, 0.3, 3)


def test_a_ratio_is_of_the_same_load() -> None:
    figures = summarize(rounds(SQLITE, 1000.0) + rounds(RELAY, 4000.0) + rounds(RELAY, 1.0, connections=128))
    assert ratio(figures, SQLITE, RELAY, Kind.REQUESTS, 32) == 0.25
    assert ratio(figures, SQLITE, RELAY, Kind.REQUESTS, 128) is None


def test_what_slows_a_round_for_both_does_not_change_their_ratio() -> None:
    """Of the medians it would be 1.0: the machine was slow in two rounds, and each of the targets had luck in one."""
    figures = summarize(rounds(SQLITE, 500.0, 500.0, 250.0) + rounds(RELAY, 1000.0, 400.0, 500.0))
    assert ratio(figures, SQLITE, RELAY, Kind.REQUESTS, 32) == 0.5


def test_connections_beyond_one_for_each_of_the_loads_were_opened_anew() -> None:
    assert PLAIN.reopened == 0
    assert replace(PLAIN, upstream_connections=40).reopened == 8


def test_the_upstream_is_measured_by_the_fastest_target_at_the_load_that_asks_most_of_it() -> None:
    samples = rounds(DIRECT, 60_000.0) + rounds(RELAY, 6_000.0) + rounds(SQLITE, 3_000.0)
    samples += rounds(DIRECT, 50_000.0, connections=1) + rounds(RELAY, 2_000.0, connections=1)
    assert criteria.upstream_times(summarize(samples)) == 10.0


@pytest.mark.parametrize(
    ("name", "rate", "is_met"),
    [(RELAY, 2000.0, True), (RELAY, 2100.0, False), (PORTKEY, 250.0, True), (LITELLM, 26.0, False)],
)
def test_a_target_for_the_rate_is_met_or_not(name: str, rate: float, is_met: bool) -> None:
    found = criteria.judge(results(rounds(SQLITE, 1000.0) + rounds(name, rate)))
    assert [c.is_met for c in found if name in c.text and SQLITE in c.text and "requests" in c.text] == [is_met]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {c.is_met for c in criteria.judge(results([]))} == {None}


@pytest.mark.parametrize(("last", "is_met"), [(110, True), (111, False)])
def test_memory_may_grow_by_a_tenth(last: int, is_met: bool) -> None:
    found = results([])
    found.memory = [MemoryPoint(SQLITE, 10_000, 100), MemoryPoint(SQLITE, 100_000, last)]
    assert [c.is_met for c in criteria.judge(found) if "memory" in c.text and SQLITE in c.text] == [is_met]


def test_the_check_forgives_a_fifth() -> None:
    committed = {SQLITE: {"32": 0.5, "128": 0.5}}
    assert not list(check.losses({SQLITE: {"32": 0.4, "128": 0.9}}, committed))


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ({SQLITE: {"32": 0.39}}, "0.39 of the bare relay, after 0.50"),
        ({POSTGRES: {"32": 0.9}}, "not measured"),
        ({}, "not measured"),
    ],
    ids=["lost", "another target", "nothing"],
)
def test_the_check_tells_what_was_lost(measured: check.Ratios, text: str) -> None:
    (sentence,) = check.losses(measured, {SQLITE: {"32": 0.5}})
    assert text in sentence
    assert SQLITE in sentence


def test_the_committed_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    samples = rounds(RELAY, 4000.0) + rounds(SQLITE, 1000.0) + rounds(POSTGRES, 2000.0)
    measured = check.ratios(summarize(samples))
    check.write_baseline(measured, {"measured": "today"}, tmp_path / "baseline.json")
    assert check.read_baseline(tmp_path / "baseline.json") == {SQLITE: {"32": 0.25}, POSTGRES: {"32": 0.5}}


def test_without_committed_figures_it_is_said_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="bin/bench --readme"):
        check.read_baseline(tmp_path / "none.json")
