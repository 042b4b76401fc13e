"""How fast: validation Dice of what would be kept, against rounds, optimiser steps and bytes."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from flames.metrics.calibration import BINS
from flames.reports.compare.content import Comparison
from flames.reports.numbers import is_number
from flames.reports.records import Records
from flames.reports.svg import Line, line_chart, swatch

AXES = {"rounds": "round", "steps": "optimiser steps of a site", "bytes": "megabytes, all sites"}


def convergence_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row a strategy and round: steps, bytes and validation Dice, means over seeds.

    Dice is the mean over sites of what would be kept if the run ended there: the personal weights
    that validation prefers so far, or those of the site's server model. Recipes that select nothing
    show their weights after the round's training. ``steps`` are those of one site in the mean,
    ``bytes`` all that travelled until then, both ways.
    """
    rows = []
    for name, runs in comparison.runs.items():
        curves = [_curve(records) for records in runs]
        for number in sorted(set.intersection(*(set(curve) for curve in curves))):
            points = [curve[number] for curve in curves]
            means = {key: sum(p[key] for p in points) / len(points) for key in points[0]}
            rows.append({"strategy": name, "round": number} | means)
    return rows


def convergence_figures(comparison: Comparison) -> list[dict[str, Any]]:
    """Return three charts of the same curves: against rounds, steps and bytes."""
    rows = convergence_rows(comparison)
    figures = []
    for key, label in AXES.items():
        lines = []
        for index, name in enumerate(comparison.runs):
            mine = [row for row in rows if row["strategy"] == name]
            lines.append(Line(name, [(_x(row, key), row["dice"]) for row in mine], index))
        highest = max((x for line in lines for x, _ in line.points), default=1)
        svg = line_chart(
            lines,
            title="Validation Dice",
            rounds=(1 if key == "rounds" else 0, highest),
            bounds=(0.0, 1.0),
            x_label=label,
        )
        figures.append({"title": f"Validation Dice against {key}", "svg": svg})
    return figures


def reliability_figure(comparison: Comparison) -> Markup:
    """Return tumour share against probability by strategy; on the diagonal both agree."""
    lines = [Line("perfect", [(0.0, 0.0), (1.0, 1.0)], thick=True)]
    for index, (name, (_, table)) in enumerate(comparison.calibration.items()):
        if table is not None:
            bins = [row for row in table if row[0] > 0]
            lines.append(Line(name, [(p / n, t / n) for n, p, t in bins], index))
    if len(lines) == 1:
        return Markup("")
    return line_chart(
        lines,
        title=f"Share of tumour in {BINS} bins of probability",
        rounds=(0, 1),
        bounds=(0.0, 1.0),
        x_label="probability",
    )


def legend(comparison: Comparison) -> list[dict[str, Any]]:
    """Return name and swatch of each strategy."""
    return [{"name": n, "swatch": swatch(i)} for i, n in enumerate(comparison.runs)]


def _x(row: dict[str, Any], key: str) -> float:
    return float({"rounds": row["round"], "steps": row["steps"], "bytes": row["bytes"] / 1e6}[key])


def _curve(records: Records) -> dict[int, dict[str, float]]:
    clients = records.clients()
    planned = records.setting("rounds")
    curve: dict[int, dict[str, float]] = {}
    travelled = 0.0
    for number in range(1, int(planned or 0) + 1):
        mine = [r for r in records.site_rounds() if r["round"] == number]
        travelled += sum(r["bytes_up"] + r["bytes_down"] for r in mine)
        dice = _kept(records, number)
        if len(mine) == len(clients) and dice is not None:
            curve[number] = {
                "steps": sum(r["steps"] for r in mine) / len(records.sites()),
                "bytes": travelled,
                "dice": dice,
            }
    return curve


def _kept(records: Records, number: int) -> float | None:
    """Return the mean over sites of the validation Dice of what would be kept after a round."""
    groups = {r["group"]: r["best"] for r in records.server_rounds() if r["round"] == number}
    found = []
    for site, fields in records.sites().items():
        mine = [r for r in records.site_rounds(site) if r["round"] == number]
        if records.personal and mine:
            best = mine[0].get("best")
            found.append(best if is_number(best) else mine[0]["validation"].get("trained"))
        else:
            found.append(groups.get(fields.get("modality"), groups.get("all")))
    known = [value for value in found if is_number(value)]
    return sum(known) / len(known) if len(known) == len(found) and known else None
