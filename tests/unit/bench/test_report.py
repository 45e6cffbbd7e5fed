"""What a run came to: tables that fit a terminal, the file, the chart and the README's block."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import chart, readme, report
from bench.errors import BenchError
from bench.figures import summarize
from bench.own_service import POSTGRES, SQLITE
from bench.peers import LITELLM, PORTKEY
from bench.results import MemoryPoint, Results, TargetFacts, read
from bench.rounds import Kind, Sample
from bench.table import render
from bench.targets import DIRECT, RELAY
from tests.unit.bench.samples import results, rounds

WIDTH = 120


@pytest.fixture
def full() -> Results:
    """A run with everything in it, its figures as long as they get."""
    names = (DIRECT, RELAY, SQLITE, POSTGRES, PORTKEY, LITELLM)
    loads = [(Kind.REQUESTS, 1), (Kind.REQUESTS, 32), (Kind.REQUESTS, 128), (Kind.STREAMS, 32)]
    loads += [(Kind.LONG_STREAMS, 32), (Kind.PACED, 200), (Kind.FIRST_EVENT, 1)]
    samples: list[Sample] = []
    for n, name in enumerate(names):
        for kind, connections in loads:
            samples += rounds(name, 2_500_000.0 / 8**n, 2_500_001.0 / 8**n, kind=kind, connections=connections)
    found = results(samples)
    found.scale = rounds("PostgreSQL: 10,000,000 ledger rows", 1000.0) + rounds(SQLITE, 9.0, kind=Kind.PACED)
    found.targets = [
        TargetFacts(name, "1.100.10", 12.34, 326_000_000, 118_000_000, {1: 12.0, 32: 1.2}) for name in names
    ]
    found.memory = [MemoryPoint(SQLITE, 10_000, 10**8), MemoryPoint(SQLITE, 100_000, 10**8)]
    found.missing = {LITELLM: "there is no pip on this machine"}
    return found


def test_no_line_is_wider_than_a_terminal(full: Results) -> None:
    wide = [line for line in report.render_all(full).splitlines() if len(line) > WIDTH]
    assert not wide


def test_a_missing_peer_is_named(full: Results) -> None:
    assert f"missing: {LITELLM}: there is no pip" in report.render_all(full)


def test_a_variation_is_measured_by_its_first_row() -> None:
    rows = rounds("SQLite: 3 keys", 1000.0) + rounds("SQLite: 1,000 keys", 900.0) + rounds("SQLite: 10 clients", 500.0)
    rows += rounds(RELAY, 80.0, kind=Kind.PACED) + rounds(SQLITE, 40.0, kind=Kind.PACED)
    lines = report.scale_table(summarize(rows)).splitlines()[3:]
    assert [line.split()[-5] for line in lines] == ["1.00", "0.90", "1.00", "1.00", "0.50"]


def test_a_weak_upstream_makes_the_figures_void() -> None:
    weak = results(rounds(DIRECT, 4000.0) + rounds(RELAY, 1000.0))
    strong = results(rounds(DIRECT, 5000.0) + rounds(RELAY, 1000.0))
    assert "VOID" in report.render_all(weak)
    assert "VOID" not in report.render_all(strong)


@pytest.mark.parametrize(("pace", "is_told"), [([40.0, 36.0], False), ([40.0, 12.0], True), ([12.0, 40.0], True)])
def test_a_machine_that_changed_its_pace_is_told(full: Results, pace: list[float], is_told: bool) -> None:
    full.pace = pace
    text = report.render_all(full)
    assert f"{pace[0]:.0f} and then {pace[1]:.0f} million" in text
    assert ("CHANGED ITS PACE" in text) == is_told


def test_columns_of_a_table_stand_below_their_heads() -> None:
    assert render("Title", ["", "rate"], [["ours", "12,345"], ["a longer name", "1"]]).splitlines() == [
        "Title",
        "                   rate",
        "  ---------------------",
        "  ours           12,345",
        "  a longer name       1",
    ]


def test_a_run_is_read_as_it_was_written(full: Results, tmp_path: Path) -> None:
    full.write(tmp_path / "run.json")
    assert read(tmp_path / "run.json") == full


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 0}')
    with pytest.raises(ValueError, match="another version"):
        read(tmp_path / "run.json")


def test_the_chart_has_a_bar_for_each_target_and_load(full: Results) -> None:
    text = chart.render(summarize(full.samples), (1, 32, 128), "Requests & more")
    drawn = ElementTree.fromstring(text)  # noqa: S314  # our own
    rectangles = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert len(rectangles) == 5 * 3 + 3  # of the legend
    assert "prefers-color-scheme: dark" in ElementTree.tostring(drawn, "unicode")


def test_the_block_of_the_readme_is_replaced_and_nothing_else(full: Results) -> None:
    page = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    text = readme.replaced(page, readme.block(full))
    assert text.startswith(f"before\n{readme.BEGIN}\n![")
    assert text.endswith(f"```\n{readme.END}\nafter\n")
    assert "old" not in text
    assert readme.replaced(text, readme.block(full)) == text


def test_a_readme_without_its_marks_is_left_alone() -> None:
    with pytest.raises(BenchError, match="marks"):
        readme.replaced("no marks here", "text")
