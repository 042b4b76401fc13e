"""What a joining hospital gains, and how many cases it must label: a curve and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flames.files import save_text
from flames.metrics.comparison import MEAN, Values, by_repetition, paired_rows, site_scores
from flames.metrics.tables import groups_by_site, number
from flames.reports.compare.latex import latex_table
from flames.reports.compare.tables import p_text, rounded
from flames.reports.numbers import DASH, decimal, estimate, signed
from flames.reports.page import Figure, Page, PageSection, PageTable, write_page
from flames.reports.svg import Line, line_chart, swatch
from flames.reports.words import FEW, TOOK_PART
from flames.runs import load_csv, save_csv

Row = Mapping[str, Any]


def write_adaptation(out: Path, *, made_up: bool) -> Path:
    """Write ``report.html`` and ``tables/`` from ``cases.csv`` in ``out``; return the page."""
    rows = load_csv(out / "cases.csv")
    curve = curve_rows(rows)
    save_csv(out / "tables" / "curve.csv", [rounded(row) for row in curve])
    head, cells = _cells(curve)
    save_text(
        out / "tables" / "curve.tex",
        latex_table(head, cells, caption="Dice after training on few labelled cases."),
    )
    site, every = rows[0]["site"], int(rows[0]["all"])
    page = Page(
        kicker="a hospital joins",
        name=site,
        lead=" ".join([sentence(curve), *([TOOK_PART] if took_part(rows) else [])]),
        facts=[
            ("Modality", rows[0]["modality"]),
            ("Organ", rows[0]["organ"]),
            ("Training cases of the site", str(every)),
            ("Test cases", str(len({row["case_id"] for row in rows}))),
            ("Repetitions", str(len({row["seed"] for row in rows}))),
        ],
        sections=[
            PageSection(
                "How many cases must be labelled",
                "Dice on the site’s test cases. Both starts have the same labelled cases and the "
                "same optimiser steps. Differences are paired by patient.",
                [PageTable(head, cells)],
                [_figure(curve)],
            )
        ],
        limits=[
            FEW,
            "No labelled case is set aside to choose a round by: the last weights are kept.",
            "Which cases are labelled first is chance: several seeds say how much it matters.",
        ],
        made_up=made_up,
    )
    return write_page(out / "report.html", page)


def took_part(rows: Sequence[Row]) -> bool:
    """Return whether the site took part in the run that the model is from."""
    return any(int(row.get("took_part") or 0) for row in rows)


def curve_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row a number of cases: Dice from both starts, and paired differences.

    ``minus_nothing`` is to training from nothing on the same cases, ``minus_all`` to training from
    nothing on all cases of the site.
    """
    groups = groups_by_site(rows)
    numbers = sorted({int(row["cases"]) for row in rows})
    values = {
        (start, n): _values(rows, start, n)
        for start in ("model", "nothing")
        for n in numbers
        if any(row["start"] == start and int(row["cases"]) == n for row in rows)
    }
    everything = values["nothing", numbers[-1]]
    curve = []
    for n in numbers:
        record: dict[str, Any] = {"cases": n}
        for start in ("model", "nothing"):
            found = values.get((start, n))
            scores = site_scores(found, groups, seed=0)[-1] if found else {}
            record |= {
                f"{start}_{key}" if key != "mean" else f"{start}_dice": scores.get(key)
                for key in ("mean", "low", "high")
            }
        mine = values["model", n]
        for name, other in (("nothing", values.get(("nothing", n))), ("all", everything)):
            difference: dict[str, Any] = {}
            if other is not None:
                pair = paired_rows({"a": mine, "b": other}, groups, reference="b", seed=0)
                difference = next(row for row in pair if row["site"] == MEAN)
            record |= {
                f"minus_{name}{suffix}": difference.get(key)
                for key, suffix in (
                    ("mean", ""), ("low", "_low"), ("high", "_high"), ("p_value", "_p"),
                )
            }  # fmt: skip
        curve.append(record)
    return curve


def sentence(curve: Sequence[Row]) -> str:
    """Return in words from how many labelled cases on the model's Dice is not below the goal's.

    The goal is training from nothing with all cases. What decides whether the model may be worse is
    not that its mean is above, but how far the interval of the difference reaches down: it is said
    too. A Dice that a table shows as 0.000 is worth nothing, whatever it is compared with.
    """
    goal = curve[-1]["nothing_dice"]
    best = [row for row in curve if row["model_dice"] is not None and goal is not None]
    if not best:
        return (
            "Nothing can be compared: no test case has a tumour, and where a model marks none "
            "either there is no Dice."
        )
    found = [row for row in best if row["model_dice"] >= 0.0005]
    if not found and goal < 0.0005:
        return (
            "Neither the federation’s model, with any of these numbers of cases, nor training from "
            f"nothing with all {curve[-1]['cases']} finds a tumour."
        )
    reached = next((row for row in found if row["model_dice"] >= goal), None)
    if reached is None:
        nearest = max(found, key=lambda row: row["model_dice"], default=None)
        return (
            "With none of these numbers of cases does the federation’s model reach what training "
            f"from nothing reaches with all {curve[-1]['cases']}"
            + (
                f"; nearest with {nearest['cases']}: {signed(_to_all(nearest))}."
                if nearest
                else "."
            )
        )
    number = reached["cases"]
    what = (
        "without a single labelled case"
        if number == 0
        else f"with {number} labelled case{'' if number == 1 else 's'}"
    )
    return (
        f"The federation’s model is, {what}, {estimate(_to_all(reached))} above training from "
        f"nothing with all {curve[-1]['cases']} in Dice: {_allowed(reached['minus_all_low'])}."
    )


def _to_all(row: Row) -> Row:
    """Return the difference to training from nothing with all cases, with its interval."""
    keys = {"mean": "minus_all", "low": "minus_all_low", "high": "minus_all_high"}
    return {name: row[key] for name, key in keys.items()}


def _allowed(low: float | None) -> str:
    """Return in words how far below nothing's Dice the model may be, by the interval's low end."""
    if low is None:
        return "too few patients for an interval, so it may also be worse"
    return f"the interval allows a loss of {decimal(-low)}" if low < 0 else "by the whole interval"


def _values(rows: Sequence[Row], start: str, n: int) -> Values:
    seeds: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        if row["start"] == start and int(row["cases"]) == n:
            cases = seeds.setdefault(row["seed"], {}).setdefault(row["site"], {})
            cases[row["case_id"]] = number(row["dice"])
    return by_repetition(list(seeds.values()))


def _cells(curve: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = ["labelled cases", "from the model", "from nothing", "model minus nothing",
            "minus nothing with all", "p of minus all, uncorrected"]  # fmt: skip
    rows = []
    for row in curve:
        scores = [
            estimate({"mean": row[f"{s}_dice"], "low": row[f"{s}_low"], "high": row[f"{s}_high"]})
            for s in ("model", "nothing")
        ]
        differences = [
            signed({"mean": row[f"minus_{o}"], "low": row[f"minus_{o}_low"],
                    "high": row[f"minus_{o}_high"]}) or DASH
            for o in ("nothing", "all")
        ]  # fmt: skip
        rows.append([str(row["cases"]), *scores, *differences, p_text(row["minus_all_p"])])
    return head, rows


def _figure(curve: Sequence[Row]) -> Figure:
    names = {"model": "from the federation’s model", "nothing": "from nothing"}
    lines = [
        Line(
            name,
            [(row["cases"], row[f"{s}_dice"]) for row in curve if row[f"{s}_dice"] is not None],
            index,
        )
        for index, (s, name) in enumerate(names.items())
    ]
    goal = curve[-1]["nothing_dice"]
    highest = max(1, curve[-1]["cases"])
    if goal is not None:
        lines.append(Line("from nothing, all cases", [(0, goal), (highest, goal)], thick=True))
    svg = line_chart(
        lines, title="Dice", rounds=(0, highest), bounds=(0.0, 1.0), x_label="labelled cases"
    )
    legend = [{"name": line.name, "swatch": swatch(line.index, thick=line.thick)} for line in lines]
    return Figure("Dice against labelled cases", svg, legend)
