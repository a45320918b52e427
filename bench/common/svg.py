"""Lines over two axes as an SVG file: what the figures of the docs need. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 620, 380
LEFT, RIGHT, TOP, BOTTOM = 58, 196, 40, 48
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
"""Okabe and Ito: told apart by all kinds of colour vision. Dashes tell lines apart in print."""
DASHES = ("", "6 3", "2 2", "8 2 2 2", "1 3", "10 4", "4 4")


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """`x`, `y`: what the axes show, with units."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    y_range: tuple[float, float] = (0.0, 1.0)


def save(chart: Chart, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(chart))


def svg(chart: Chart) -> str:
    xs = [x for line in chart.lines for x, _ in line.points]
    at = _Scale(min(xs), max(xs), *chart.y_range)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(chart.title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" fill="#111">{escape(chart.title)}</text>',
        *_axes(chart, at, sorted(set(xs))),
        *(part for number, line in enumerate(chart.lines) for part in _drawn(line, number, at)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class _Scale:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x0) / ((self.x1 - self.x0) or 1.0) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM), 1)


def _axes(chart: Chart, at: _Scale, xs: Sequence[float]) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for step in range(6):
        value = at.y0 + (at.y1 - at.y0) * step / 5
        y = at.y(value)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end" fill="#333">{value:.2g}</text>')
    every = max(1, -(-len(xs) // 8))
    parts += [
        f'<text x="{at.x(x)}" y="{bottom + 16}" text-anchor="middle" fill="#333">{x:g}</text>' for x in xs[::every]
    ]
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" fill="#111">{escape(chart.x)}</text>')
    turned = f'transform="rotate(-90 14 {(TOP + bottom) / 2})"'
    parts.append(
        f'<text x="14" y="{(TOP + bottom) / 2}" {turned} text-anchor="middle" fill="#111">{escape(chart.y)}</text>'
    )
    return parts


def _drawn(line: Line, number: int, at: _Scale) -> list[str]:
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    points = " ".join(f"{at.x(x)},{at.y(min(max(y, at.y0), at.y1))}" for x, y in line.points)
    style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}" fill="none"'
    x, y = WIDTH - RIGHT + 12, TOP + 8 + 20 * number
    return [
        f'<polyline points="{points}" {style}/>',
        f'<line x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}" {style}/>',
        f'<text x="{x + 30}" y="{y + 4}" fill="#111">{escape(line.name)}</text>',
    ]
