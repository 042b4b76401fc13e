"""A matrix of scores as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from flames.reports.numbers import decimal, is_number
from flames.reports.svg import shortened

_LEFT, _TOP, _CELL, _ROW = 210, 34, 96, 28


def heatmap(cells: Mapping[tuple[str, str], tuple[float | None, bool]]) -> Markup:
    """Return a matrix of values in 0 to 1, each with its number; framed where the flag is set.

    Args:
        cells: (row, column) → (value, framed); rows and columns keep the order of their mention.
    """
    if not cells:
        return Markup("")
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    parts = [
        Markup(
            '<text class="tick" x="{:.0f}" y="{}" text-anchor="middle"><title>{}</title>{}</text>'
        ).format(_LEFT + (n + 0.5) * _CELL, _TOP - 10, column, shortened(column, 16))
        for n, column in enumerate(columns)
    ]
    for number, row in enumerate(rows):
        y = _TOP + number * _ROW
        parts.append(
            Markup('<text x="{}" y="{:.0f}" text-anchor="end"><title>{}</title>{}</text>').format(
                _LEFT - 8, y + 18, row, shortened(row, 32)
            )
        )
        for place, column in enumerate(columns):
            value, framed = cells.get((row, column), (None, False))
            if is_number(value):
                parts.append(_cell(_LEFT + place * _CELL, y, value, framed=framed))
    spoken = "; ".join(
        f"{row} on {column}: {decimal(v)}" for (row, column), (v, _) in cells.items()
    )
    width = _LEFT + len(columns) * _CELL + 4
    return Markup(
        '<svg class="heat" style="max-width: {:.0f}px" viewBox="0 0 {} {}" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(
        min(1000, 1.3 * width),
        width,
        _TOP + len(rows) * _ROW + 4,
        spoken,
        Markup("").join(parts),
    )


def _cell(x: float, y: float, value: float, *, framed: bool) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.0f}" y="{:.0f}" width="{}" height="{}" fill-opacity="{:.2f}"/>'
        '<text x="{:.0f}" y="{:.0f}" text-anchor="middle">{}</text>'
    ).format(
        "seen" if framed else "new",
        x + 1,
        y + 1,
        _CELL - 4,
        _ROW - 4,
        0.08 + 0.42 * min(1.0, max(0.0, value)),  # text stays legible on a dark page too
        x + _CELL / 2,
        y + 18,
        decimal(value),
    )
