"""Dice lost under each shift, as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flames.files import save_text
from flames.metrics.comparison import MEAN, paired_rows, site_scores
from flames.metrics.statistics import RESAMPLES
from flames.metrics.tables import groups_by_site, number
from flames.reports.compare.latex import latex_table
from flames.reports.compare.tables import p_text, rounded
from flames.reports.numbers import DASH, decimal, estimate, signed
from flames.reports.page import Page, PageSection, PageTable, write_page
from flames.reports.words import FEW
from flames.runs import load_csv, save_csv


def write_robustness(out: Path, *, name: str, seed: int, resamples: int = RESAMPLES) -> Path:
    """Write ``shifts.html`` and ``tables/`` from ``shifts.csv`` in ``out``; return the page.

    Intervals and tests have ``resamples`` draws by ``seed``. ``shifts.json`` says whether all
    images are made up.
    """
    claim = json.loads((out / "shifts.json").read_text(encoding="utf-8"))
    rows = load_csv(out / "shifts.csv")
    values: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        shift = " ".join((row["shift"], row["strength"])).strip()
        cases = values.setdefault(shift, {}).setdefault(row["site"], {})
        cases[row["case_id"]] = number(row["dice"])
    groups = groups_by_site(rows)
    lost = paired_rows(values, groups, reference="none", seed=seed, resamples=resamples)
    scores = {
        shift: {r["site"]: r for r in site_scores(v, groups, seed=seed, resamples=resamples)}
        for shift, v in values.items()
    }
    save_csv(
        out / "tables" / "shifts.csv",
        [
            rounded({"shift": shift, "site": site, "measure": "dice"} | row)
            for shift, found in scores.items()
            for site, row in found.items()
        ],
    )
    save_csv(out / "tables" / "lost.csv", [rounded(row) for row in lost])
    head, cells = mean_cells(scores, lost)
    save_text(
        out / "tables" / "shifts.tex",
        latex_table(head, cells, caption="Dice under shifts of the machine, mean over sites."),
    )
    page = Page(
        kicker="robustness",
        name=name,
        lead="The same model on the same test cases, as another machine might have imaged them.",
        facts=[
            ("Models", ", ".join(sorted({row["model"] for row in rows}))),
            ("Sites", str(len({row["site"] for row in rows}))),
            ("Cases", str(len({(row["site"], row["case_id"]) for row in rows}))),
        ],
        sections=[
            PageSection(
                "Dice lost, mean over sites",
                "Change against the unshifted image, paired by patient, with a 95 % "
                "interval; p after Holm’s correction for all shifts.",
                [PageTable(head, cells)],
            ),
            PageSection("Site by site", "", [_site_table(scores, lost)]),
        ],
        limits=[
            FEW,
            "Shifts are simulated on finished images: a real change of machine is more than one of "
            "them.",
            "The intensity window is found again after a shift, as preparation would. A gain that "
            "normalisation undoes costs nothing.",
            "Under a crop, image and label lose their border alike.",
            "Seen from the corners, the image is the same, read as four overlapping crops: a model "
            "that knows where tumours lie, and not what they look like, loses most there.",
        ],
        made_up=claim["made_up"],
    )
    return write_page(out / "shifts.html", page)


def mean_cells(
    scores: dict[str, dict[str, dict[str, Any]]], lost: Sequence[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Return head and a row a shift: Dice, what is lost, and its corrected p-value."""
    found = {row["strategy"]: row for row in lost if row["site"] == MEAN}
    rows = []
    for shift, sites in scores.items():
        row = found.get(shift)
        change = signed(row) or DASH if row else DASH
        rows.append([shift, estimate(sites[MEAN]), change, p_text(row["p_holm"] if row else None)])
    return ["shift", "Dice", "change", "p, Holm"], rows


def _site_table(
    scores: dict[str, dict[str, dict[str, Any]]], lost: Sequence[dict[str, Any]]
) -> PageTable:
    sites = [site for site in next(iter(scores.values())) if site != MEAN]
    changes = {(row["strategy"], row["site"]): row for row in lost}
    rows = []
    for shift, found in scores.items():
        cells = [
            estimate(found[s]) if shift == "none" else signed(changes[shift, s]) for s in sites
        ]
        rows.append([shift, *(cell or DASH for cell in cells)])
    return PageTable(
        ["shift", *sites], rows, note="First row: Dice unshifted. Other rows: its change."
    )


def overview(out: Path) -> list[dict[str, Any]]:
    """Return the means over sites: ``shift``, ``dice`` and ``change``, each with its interval.

    ``change`` is None for the unshifted images.
    """
    lost = {r["strategy"]: r for r in load_csv(out / "tables" / "lost.csv") if r["site"] == MEAN}
    return [
        {
            "shift": row["shift"],
            "dice": _interval(row),
            "change": _interval(lost[row["shift"]]) if row["shift"] in lost else None,
        }
        for row in load_csv(out / "tables" / "shifts.csv")
        if row["site"] == MEAN
    ]


def overview_lines(out: Path) -> list[list[str]]:
    """Return the means over sites as text: shift, Dice, change."""
    return [
        [
            row["shift"],
            decimal(row["dice"]["mean"]),
            decimal(row["change"]["mean"]) if row["change"] else DASH,
        ]
        for row in overview(out)
    ]


def _interval(row: dict[str, str]) -> dict[str, float | None]:
    return {key: number(row[key]) for key in ("mean", "low", "high")}
