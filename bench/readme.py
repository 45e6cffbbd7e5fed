"""Writes a run's figures where readers find them: README, its chart, and the figures that `--check` compares with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import chart, check, report
from bench.errors import BenchError
from bench.figures import summarize
from bench.results import Results
from bench.rounds import Kind

BEGIN = "<!-- bench: begin (bin/bench --readme writes up to the end mark) -->"
END = "<!-- bench: end -->"
CHART = "bench/speed.svg"
_TITLE = "Requests per second on one core"


def write(results: Results, root: Path) -> int:
    """The exit code. Raises BenchError when the README has no place for it, or the run has not all it takes."""
    figures = summarize(results.samples)
    connections = sorted({key[2] for key in figures if key[1] == Kind.REQUESTS})
    if not figures:
        raise BenchError("This run has no comparison in it: run bin/bench first.")
    page = root / "README.md"
    page.write_text(replaced(page.read_text(), block(results)))
    (root / CHART).write_text(chart.render(figures, connections, _TITLE))
    check.write_baseline(check.ratios(figures), results.machine)
    return 0


def replaced(page: str, text: str) -> str:
    """The page with `text` between the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"README.md lacks the marks {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def block(results: Results) -> str:
    return f"![{_TITLE}]({CHART})\n\n{fenced(report.render_all(results).splitlines())}"


def fenced(lines: Sequence[str]) -> str:
    return "\n".join(["```", *(line.rstrip() for line in lines), "```"])
