"""Students beside their teachers, site by site, with what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from flames.files import save_text
from flames.metrics.comparison import MEAN, Groups, Values, paired_rows, site_scores
from flames.metrics.statistics import RESAMPLES
from flames.metrics.tables import groups_by_site, number
from flames.reports.compare.latex import latex_table
from flames.reports.compare.tables import p_text, rounded
from flames.reports.heatmap import heatmap
from flames.reports.numbers import DASH, decimal, estimate, signed, whole
from flames.reports.page import Figure, Page, PageSection, PageTable, write_page
from flames.reports.words import FEW
from flames.runs import load_csv, save_csv

TEACHER = "teacher"


def write_distillation(out: Path, *, name: str, resamples: int = RESAMPLES) -> Path:
    """Write ``report.html`` and ``tables/`` from the study in ``out``; return the page.

    Intervals and tests have ``resamples`` draws by seed 0, so that students of several seeds are
    tossed alike.
    """
    study = json.loads((out / "distil.json").read_text(encoding="utf-8"))
    rows = load_csv(out / "cases.csv")
    values: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        cases = values.setdefault(row["student"], {}).setdefault(row["site"], {})
        cases[row["case_id"]] = number(row["dice"])
    groups = groups_by_site(rows)
    scores = {
        n: {r["site"]: r for r in site_scores(v, groups, seed=0, resamples=resamples)}
        for n, v in values.items()
    }
    paired = student_pairs(values, groups, resamples=resamples)
    save_csv(
        out / "tables" / "scores.csv",
        [rounded({"model": n} | row) for n, found in scores.items() for row in found.values()],
    )
    save_csv(out / "tables" / "paired.csv", [rounded(row) for row in paired])
    costs = load_csv(out / "costs.csv")
    head = ["site", "test cases", *scores]
    counts = {site: len(cases) for site, cases in groups.items()}
    counts[MEAN] = sum(counts.values())
    cells = [
        [site, str(count), *(estimate(v[site]) for v in scores.values())]
        for site, count in counts.items()
    ]
    caption = "Dice of teachers and students on test cases, 95 % bootstrap intervals."
    save_text(
        out / "tables" / "scores.tex", latex_table(head, cells, caption=caption, last_apart=True)
    )
    page = Page(
        kicker="distillation",
        name=name,
        lead=_lead(sorted(study["teachers"])),
        facts=[
            ("Students", str(len(scores) - 1)),
            ("Sites", str(len(groups))),
            ("Images at the server", "made-up" if study["made_up"] else "its own stores"),
        ],
        sections=[
            PageSection(
                "Sites",
                "Dice on test cases.",
                [PageTable(head, cells, last_apart=True)],
                [Figure("Models (columns) on sites (rows)", _picture(scores, counts), wide=True)],
            ),
            PageSection(
                "Student minus teacher",
                "Paired by patient.",
                [_differences([r for r in paired if r["reference"] == TEACHER])],
            ),
            *_what_teachers_gave([r for r in paired if r["reference"] != TEACHER]),
            PageSection(
                "What it costs",
                "Milliseconds are processor time in float32, alone and in a batch of 16. "
                "Activations are the outputs of all layers for one image.",
                [_costs(costs)],
            ),
        ],
        limits=[
            FEW,
            "“told”: the student gets the modality of an image as input. “nolabels”: it learned "
            "from its teachers alone, and validation compared it with them. “alone”: it learned "
            "from labels alone.",
            *(
                [
                    "The server owned no images: it taught with made-up ones, which cost Dice. "
                    "Labels of made-up tumours spoil a student: take one of “nolabels”."
                ]
                if study["made_up"]
                else []
            ),
            *(
                []
                if study["sites_here"]
                else [
                    "No site’s store is here: scores are on the test cases of the server’s own "
                    "stores, of which it taught with others."
                ]
            ),
        ],
        made_up=study["sites_made_up"],
    )
    return write_page(out / "report.html", page)


def overview_lines(out: Path) -> list[list[str]]:
    """Return a line a model as text: Dice over sites, change, parameters, ms an image."""
    scores = [r for r in load_csv(out / "tables" / "scores.csv") if r["site"] == MEAN]
    rows = [r for r in load_csv(out / "tables" / "paired.csv") if r["site"] == MEAN]
    paired = {row["strategy"]: row for row in rows if row["reference"] == TEACHER}
    costs = {row["model"]: row for row in load_csv(out / "costs.csv")}
    return [
        [
            row["model"],
            decimal(number(row["mean"])),
            decimal(number(paired[row["model"]]["mean"])) if row["model"] in paired else DASH,
            whole(number(costs[row["model"]]["parameters"])),
            decimal(number(costs[row["model"]]["ms_alone"]), 1),
            decimal(number(costs[row["model"]]["ms_in_batch"]), 1),
        ]
        for row in scores
    ]


def student_pairs(
    values: Mapping[str, Values], groups: Groups, *, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """Return students minus the teachers, then those taught with labels minus labels alone.

    Each ``reference`` has a Holm correction of its own.
    """
    pairs = [(TEACHER, list(values))]
    pairs += [
        (f"{told}-alone", [f"{told}-labels", f"{told}-alone"])
        for told in ("told", "untold")
        if {f"{told}-labels", f"{told}-alone"} <= set(values)
    ]
    return [
        {"reference": reference} | row
        for reference, names in pairs
        for row in paired_rows(
            {name: values[name] for name in names},
            groups,
            reference=reference,
            seed=0,
            resamples=resamples,
        )
    ]


def _what_teachers_gave(paired: list[dict[str, Any]]) -> list[PageSection]:
    if not paired:
        return []
    told = "Students of labels and teachers minus students of the same labels alone, by patient."
    return [PageSection("What the teachers gave", told, [_differences(paired)])]


def _lead(modalities: Sequence[str]) -> str:
    *others, last = modalities
    if not others:
        return (
            f"One student for {last}, taught by the server’s model of {last}, beside it on every "
            f"{last} site’s test cases."
        )
    return (
        f"One student for {', '.join(others)} and {last}, taught by the server’s models, on every "
        "site’s test cases beside them."
    )


def _differences(paired: list[dict[str, Any]]) -> PageTable:
    means, sites = (
        [
            [row["strategy"], row["site"], signed(row) or DASH, p_text(row["p_holm"])]
            for row in paired
            if (row["site"] == MEAN) == mean
        ]
        for mean in (True, False)
    )
    return PageTable(["student", "site", "difference in Dice", "p, Holm"], means, by_site=sites)


def _picture(scores: Mapping[str, Mapping[str, Mapping[str, Any]]], sites: Iterable[str]) -> Markup:
    return heatmap(
        {
            (site, name): (found[site]["mean"], False)
            for site in sites
            for name, found in scores.items()
        }
    )


def _costs(costs: list[dict[str, str]]) -> PageTable:
    head = ["model", "modality", "parameters", "MB of weights", "MB of activations",
            "ms alone", "ms in a batch"]  # fmt: skip
    keys = [("weights_mb", 2), ("activations_mb", 2), ("ms_alone", 1), ("ms_in_batch", 1)]
    return PageTable(
        head,
        [
            [row["model"], row["modality"], whole(number(row["parameters"])),
             *(decimal(number(row[key]), digits) for key, digits in keys)]
            for row in costs
        ],
    )  # fmt: skip
