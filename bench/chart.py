"""The README's chart: requests per second as bars, in an SVG that is readable on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.figures import Figures
from bench.rounds import Kind
from bench.targets import DIRECT

_WIDTH, _LEFT, _RIGHT = 760, 170, 90
_BAR, _GAP, _TOP = 16, 14, 54
_COLOURS = ("a", "b", "c")
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.value { font-size: 12px; fill: #59636e }
.a { fill: #9ec5f4 } .b { fill: #4a90d9 } .c { fill: #1f5fa8 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .value { fill: #9198a1 }
  .a { fill: #2c5a8c } .b { fill: #4a90d9 } .c { fill: #a5d0ff }
}
"""


def render(figures: Figures, connections: Sequence[int], title: str) -> str:
    """A group of bars for each target but the upstream itself, one bar for each number of connections."""
    names = [name for name in dict.fromkeys(key[0] for key in figures) if name != DIRECT]
    rates = {key: figure.per_second for key, figure in figures.items() if key[1] == Kind.REQUESTS and key[0] != DIRECT}
    most = max(rates.values(), default=1.0)
    parts, y = [_legend(connections)], _TOP
    for name in names:
        parts.append(_text(_LEFT - 10, y + _BAR * len(connections) / 2 + 5, name, anchor="end"))
        for n, colour in zip(connections, _COLOURS, strict=False):
            parts.append(_bar(y, rates.get((name, Kind.REQUESTS, n), 0.0), most, colour))
            y += _BAR
        y += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", _text(10, 20, title, css="title"), *parts, "</svg>\n"])


def _bar(y: float, rate: float, most: float, colour: str) -> str:
    width = (_WIDTH - _LEFT - _RIGHT) * rate / most
    bar = f'<rect class="{colour}" x="{_LEFT}" y="{y}" width="{max(width, 1):.1f}" height="{_BAR - 2}" rx="2"/>'
    return bar + _text(_LEFT + width + 6, y + _BAR - 5, f"{rate:,.0f}", css="value")


def _legend(connections: Sequence[int]) -> str:
    parts = []
    for place, (n, colour) in enumerate(zip(connections, _COLOURS, strict=False)):
        x = _LEFT + place * 140
        label = f"{n} connection{'' if n == 1 else 's'}"
        parts.append(
            f'<rect class="{colour}" x="{x}" y="32" width="12" height="12" rx="2"/>' + _text(x + 18, 43, label)
        )
    return "\n".join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>'
