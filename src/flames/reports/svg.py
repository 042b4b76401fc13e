"""Drawings as inline SVG: no fonts, scripts or files of their own; colours come from the page.

Text passes through ``Markup.format``, which escapes it. Coordinates are rounded to a tenth, so
that the same numbers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

from flames.reports.numbers import decimal, estimate, is_number

COLOURS = 6
DASHES = ("", "5 3", "1.5 3", "8 3 2 3")

_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 12, 30
_WIDTH, _HEIGHT = 340, 200


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points, and its place in the palette; a thick one is a server's."""

    name: str
    points: list[tuple[float, float]]
    index: int = 0
    thick: bool = False


@dataclass(frozen=True)
class Dot:
    """A row of a forest plot: a mean with its interval, and the single cases behind it."""

    label: str
    note: str
    kind: str
    score: dict[str, float | None]
    cases: list[float]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    rounds: tuple[float, float],
    bounds: tuple[float, float] | None = None,
    x_label: str = "round",
) -> Markup:
    """Return curves against rounds; ``bounds`` fixes the vertical axis. No points, no drawing.

    With another ``x_label`` the curves are against that, and ``rounds`` are the axis's ends.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return Markup("")
    ys = [y for line in lines for _, y in line.points]
    x_ticks = ticks(*rounds, whole=rounds[1] - rounds[0] > 1 or x_label == "round")
    y_ticks = ticks(*(bounds or (min(ys), max(ys))))
    x_span = (rounds[0], max(rounds[1], rounds[0] + 1))
    y_span = (y_ticks[0], y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _scale(x, x_span, (_LEFT, _WIDTH - _RIGHT)),
            _scale(y, y_span, (_HEIGHT - _BOTTOM, _TOP)),
        )

    parts = [_grid(place, x_ticks, y_ticks, x_span, x_label)]
    parts += [_curve(line, place) for line in lines]
    ends = "; ".join(f"{line.name} ends at {decimal(line.points[-1][1])}" for line in lines)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, f"{title} by {x_label}: {ends}.", Markup("").join(parts))


def forest_plot(dots: Sequence[Dot], *, title: str) -> Markup:
    """Return means with intervals on an axis from 0 to 1, single cases as marks beneath."""
    dots = [dot for dot in dots if is_number(dot.score.get("mean"))]
    if not dots:
        return Markup("")
    width, left, right, row = 820, 200, 160, 25
    tops: list[float] = []
    y = 14.0
    for number, dot in enumerate(dots):
        y += row + (9 if number and dot.label != dots[number - 1].label else 0)
        tops.append(y - row / 2)
    height = y + 44
    span = (left, width - right)
    axis = Markup("").join(_forest_tick(n / 5, span, y + 6) for n in range(6))
    rows = Markup("").join(
        _forest_row(dot, top, span, show_label=not number or dot.label != dots[number - 1].label)
        for number, (dot, top) in enumerate(zip(dots, tops, strict=True))
    )
    spoken = "; ".join(f"{dot.label}, {dot.kind}: {estimate(dot.score)}" for dot in dots)
    return Markup(
        '<svg class="forest" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">'
        '{}{}<text class="axis" x="{:.0f}" y="{:.0f}" text-anchor="middle">Dice</text></svg>'
    ).format(width, height, f"{title}. {spoken}.", axis, rows, sum(span) / 2, height - 4)


def swatch(index: int, *, thick: bool = False) -> Markup:
    """Return the sample of a curve for a legend."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true">'
        '<line class="{}" x1="1" y1="5" x2="25" y2="5" stroke-dasharray="{}"/></svg>'
    ).format(_style(index, thick), _dash(index, thick))


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return a few round numbers around ``[low, high]``; whole ones stay inside.

    >>> ticks(0.12, 0.91)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(1, 5, whole=True)
    [1, 2, 3, 4, 5]
    >>> ticks(0.5, 0.5)
    [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    """
    if high <= low:
        if whole:
            return [low]
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / 5
    power = 10 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    if whole:
        step = max(1, ceil(step))
        return [low, *(n * step for n in range(floor(low / step) + 1, floor(high / step) + 1))]
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def _grid(place, x_ticks, y_ticks, x_span, x_label) -> Markup:  # type: ignore[no-untyped-def]
    rows = []
    for y in y_ticks:
        x0, at = place(x_span[0], y)
        x1, _ = place(x_span[1], y)
        rows.append(
            Markup(
                '<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(x0, at, x1, at, x0 - 6, at + 3.5, f"{y:g}".replace("-", "−"))
        )
    for x in x_ticks:
        at, base = place(x, y_ticks[0])
        rows.append(
            Markup(
                '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>'
            ).format(at, base + 14, f"{x:g}")
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    rows.append(
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            middle, _HEIGHT - 3, x_label
        )
    )
    return Markup("").join(rows)


def _curve(line: Line, place) -> Markup:  # type: ignore[no-untyped-def]
    spots = [place(x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    style = _style(line.index, line.thick)
    marks = spots if len(spots) <= 12 else spots[-1:]
    circles = Markup("").join(
        Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.4"/>').format(style, x, y)
        for x, y in marks
    )
    return Markup(
        '<g><title>{}</title><polyline class="{}" points="{}" stroke-dasharray="{}"/>{}</g>'
    ).format(line.name, style, path, _dash(line.index, line.thick), circles)


def _forest_tick(value: float, span: tuple[float, float], base: float) -> Markup:
    x = _scale(value, (0, 1), span)
    return Markup(
        '<line class="grid" x1="{0:.1f}" y1="10" x2="{0:.1f}" y2="{1:.1f}"/>'
        '<text class="tick" x="{0:.1f}" y="{2:.1f}" text-anchor="middle">{3:.1f}</text>'
    ).format(x, base, base + 14, value)


def _forest_row(dot: Dot, y: float, span: tuple[float, float], *, show_label: bool) -> Markup:
    mean = float(dot.score["mean"] or 0)
    low, high = (dot.score.get(end) for end in ("low", "high"))
    x, x0, x1 = (
        _scale(value if is_number(value) else mean, (0, 1), span) for value in (mean, low, high)
    )
    marks = " ".join(f"M{_scale(v, (0, 1), span):.1f} {y + 6:.1f}v5" for v in sorted(dot.cases))
    label = (
        Markup(
            '<text class="name" x="0" y="{:.1f}">{}</text>'
            '<text class="tick" x="0" y="{:.1f}">{}</text>'
        ).format(y + 4, shortened(dot.label), y + 19, shortened(dot.note, 34))
        if show_label
        else Markup("")
    )
    return Markup(
        '<g class="{}"><title>{}</title>{}<path class="cases" d="{}"/>'
        '<line class="whisker" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>{}'
        '<text class="value" x="820" y="{:.1f}" text-anchor="end">{}</text></g>'
    ).format(
        dot.kind,
        f"{dot.label}, {dot.kind} model: Dice {estimate(dot.score)}",
        label,
        marks,
        x0,
        y,
        x1,
        y,
        _dot_mark(dot.kind, x, y),
        y + 4,
        estimate(dot.score),
    )


def _dot_mark(kind: str, x: float, y: float) -> Markup:
    if kind == "personal":
        return Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y)
    return Markup(
        '<rect class="dot" x="{:.1f}" y="{:.1f}" width="8" height="8" '
        'transform="rotate(45 {:.1f} {:.1f})"/>'
    ).format(x - 4, y - 4, x, y)


def _style(index: int, thick: bool) -> str:
    return "line server" if thick else f"line c{index % COLOURS}"


def _dash(index: int, thick: bool) -> str:
    return "" if thick else DASHES[index // COLOURS % len(DASHES)]


def shortened(text: str, limit: int = 26) -> str:
    """Return ``text`` with its middle left out where it is longer than ``limit``.

    Names of one hospital's sites often differ in their ends only.

    >>> shortened("mr-brain-university-1", 12)
    'mr-bra…ity-1'
    """
    tail = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[: limit - 1 - tail]}…{text[-tail:]}"


def _scale(value: float, source: tuple[float, float], target: tuple[float, float]) -> float:
    share = (value - source[0]) / (source[1] - source[0])
    return target[0] + share * (target[1] - target[0])
