"""The landscape of a study as one SVG: a panel per knob, every trial a dot over its value, medians, the best marked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from shoal.plan.space import Knob
from shoal.plan.study import Trial

PANEL_WIDTH, PANEL_HEIGHT, MARGIN, COLUMNS = 260, 170, 46, 4
DOT, BEST, MEDIAN, FAILED = "#3a6ea5", "#d1495b", "#8a8f98", "#b0b4ba"


def landscape(space: Sequence[Knob], trials: Sequence[Trial], title: str, unit: str) -> str:
    """A whole SVG document. Dots share one axis of scores; trials that failed are crosses on the floor."""
    scores = [trial.score for trial in trials if trial.failure is None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    panels = [_panel(index, knob, trials, (low, high if high > low else low + 1.0)) for index, knob in enumerate(space)]
    columns, rows = min(COLUMNS, len(space)), -(-len(space) // COLUMNS)
    width, height = columns * (PANEL_WIDTH + MARGIN) + MARGIN, rows * (PANEL_HEIGHT + 2 * MARGIN) + 40
    heading = f"{escape(title)} ({len(trials)} trials, {escape(unit)})"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{MARGIN}" y="26" font-size="15">{heading}</text>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(index: int, knob: Knob, trials: Sequence[Trial], span: tuple[float, float]) -> str:
    left = MARGIN + (index % COLUMNS) * (PANEL_WIDTH + MARGIN)
    top = 58 + (index // COLUMNS) * (PANEL_HEIGHT + 2 * MARGIN)
    marks = [_frame(knob, span)]
    for place, value in enumerate(knob.values):
        x = _x(place, len(knob.values))
        marks.append(f'<text x="{x:.1f}" y="{PANEL_HEIGHT + 16}" text-anchor="middle">{escape(_short(value))}</text>')
        marks += _marks(x, [trial for trial in trials if trial.settings[knob.name] == value], span)
    marks.append(_best(knob, trials, span))
    return f'<g transform="translate({left},{top})">' + "".join(marks) + "</g>"


def _frame(knob: Knob, span: tuple[float, float]) -> str:
    low, high = span
    return (
        f'<rect width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" fill="none" stroke="#d5d8dc"/>'
        f'<text x="0" y="-6" font-weight="600">{escape(knob.name)}</text>'
        f'<text x="-4" y="8" text-anchor="end">{high:.4g}</text>'
        f'<text x="-4" y="{PANEL_HEIGHT}" text-anchor="end">{low:.4g}</text>'
    )


def _marks(x: float, trials: Sequence[Trial], span: tuple[float, float]) -> list[str]:
    ran = [trial.score for trial in trials if trial.failure is None]
    out = [f'<circle cx="{x:.1f}" cy="{_y(score, span):.1f}" r="3" fill="{DOT}" fill-opacity=".5"/>' for score in ran]
    floor = PANEL_HEIGHT - 4
    out += [f'<path d="M{x - 3:.1f} {floor - 3}l6 6m0 -6l-6 6" stroke="{FAILED}"/>'] * (len(trials) - len(ran))
    if ran:
        y = _y(statistics.median(ran), span)
        out.append(f'<path d="M{x - 12:.1f} {y:.1f}h24" stroke="{MEDIAN}" stroke-width="2"/>')
    return out


def _best(knob: Knob, trials: Sequence[Trial], span: tuple[float, float]) -> str:
    best = max((trial for trial in trials if trial.failure is None), key=lambda trial: trial.score, default=None)
    if best is None:
        return ""
    x = _x(knob.values.index(best.settings[knob.name]), len(knob.values))
    return f'<circle cx="{x:.1f}" cy="{_y(best.score, span):.1f}" r="5" fill="none" stroke="{BEST}" stroke-width="2"/>'


def _x(place: int, count: int) -> float:
    return PANEL_WIDTH * (place + 0.5) / count


def _y(score: float, span: tuple[float, float]) -> float:
    low, high = span
    return (PANEL_HEIGHT - 10) * (high - score) / (high - low) + 5


def _short(value: object) -> str:
    text = str(value).rsplit("/", 1)[-1]
    return text if len(text) <= 14 else text[:6] + "…" + text[-7:]
