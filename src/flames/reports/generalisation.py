"""Left-out organs and hospitals as tables, differences and a matrix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from flames.files import save_text
from flames.metrics.comparison import MEAN, Values, by_repetition, paired_rows, site_scores
from flames.metrics.statistics import RESAMPLES
from flames.metrics.tables import groups_by_site, number
from flames.reports.compare.latex import latex_table
from flames.reports.compare.tables import p_text, rounded
from flames.reports.heatmap import heatmap
from flames.reports.numbers import DASH, decimal, estimate, signed
from flames.reports.page import Figure, Page, PageSection, PageTable, write_page
from flames.reports.words import FEW
from flames.runs import load_csv, save_csv

NAMES = {
    "server": "server model",
    "own": "site alone",
    "pooled": "pooled others",
    "everything": "all modalities",
}
KINDS = {
    "organ": "An organ that nobody trained on",
    "hospital": "A hospital that did not take part",
    "known-organ": "Of these, hospitals whose organ others hold",
}
Row = Mapping[str, Any]


def write_generalisation(
    out: Path, *, name: str, config_text: str, made_up: bool, resamples: int = RESAMPLES
) -> Path:
    """Write ``report.html`` and ``tables/`` of the study in ``out``; return the report's path.

    Intervals and tests have ``resamples`` draws, by the first seed of the study.
    """
    rows = load_csv(out / "cases.csv")
    planned = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    sections, scores, differences = [], [], []
    for kind, title in KINDS.items():
        mine = _of(kind, [row for row in rows if row["claim"] in NAMES])
        if mine:
            found = _kind(mine, resamples)
            table = _score_table(found[0], groups_by_site(mine))
            sections.append(_section(title, kind, table, found[1]))
            text = latex_table(*table, caption=f"{title}: Dice.", last_apart=True)
            save_text(out / "tables" / f"{kind}.tex", text)
            scores += [{"left_out": kind} | rounded(row) for row in found[0]]
            differences += [{"left_out": kind} | rounded(row) for row in found[1]]
    matrices = matrix_rows(rows)
    save_csv(out / "tables" / "scores.csv", scores)
    save_csv(out / "tables" / "paired.csv", differences)
    save_csv(out / "tables" / "matrix.csv", [rounded(row) for row in matrices])
    sections.append(_matrix_section(matrices))
    seeds = sorted({row["seed"] for row in rows}, key=int)
    page = Page(
        kicker="unseen organs and hospitals",
        name=name,
        lead="Every model is scored on test cases of sites that it was not trained on, beside the "
        "model of that site alone on the same cases.",
        facts=[
            ("Left out in turn", str(len(planned["left_out"]))),
            ("Repetitions", f"{len(seeds)} (seed {', '.join(seeds)})"),
            ("Sites", str(len({row["site"] for row in rows}))),
        ],
        sections=sections,
        limits=[
            *planned["notes"],
            FEW,
            "A modality with two organs leaves one to train on: its result speaks of that pair.",
            "The model of the site alone is chosen on validation cases of that site; the others "
            "never saw a case of it.",
            "The pooled model takes the steps of all its sites on one model.",
        ],
        made_up=made_up,
        config_text=config_text,
    )
    return write_page(out / "report.html", page)


def matrix_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return a row a model and site: Dice of models of one site, and of all but the left-out ones.

    ``seen`` says whether the model was trained on the site.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["claim"] in ("alone", "server"):
            label = row["trained_on"] if row["claim"] == "alone" else f"without {row['left_out']}"
            found.setdefault((row["modality"], label, row["site"]), []).append(row)
    return [
        {
            "modality": modality,
            "trained_on": label,
            "tested_on": site,
            "seen": label == site,
            "dice": _mean(cell),
        }
        for (modality, label, site), cell in sorted(found.items())
    ]


def _of(kind: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a kind; those of known organs only where they are some of all."""
    hospitals = [row for row in rows if "hospital" in row["kinds"].split()]
    if kind != "known-organ":
        return hospitals if kind == "hospital" else [r for r in rows if kind in r["kinds"].split()]
    known = [row for row in hospitals if "organ" not in row["kinds"].split()]
    return known if len(known) < len(hospitals) else []


def _kind(rows: Sequence[Row], resamples: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    values = {claim: _values(rows, claim) for claim in NAMES}
    groups = groups_by_site(rows)
    seed = min(int(row["seed"]) for row in rows)
    scores = [
        {"claim": claim} | row
        for claim, found in values.items()
        for row in site_scores(found, groups, seed=seed, resamples=resamples)
    ]
    return scores, paired_rows(values, groups, reference="server", seed=seed, resamples=resamples)


def _values(rows: Sequence[Row], claim: str) -> Values:
    seeds: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        if row["claim"] == claim:
            cases = seeds.setdefault(row["seed"], {}).setdefault(row["site"], {})
            cases[row["case_id"]] = number(row["dice"])
    return by_repetition(list(seeds.values()))


def _section(
    title: str,
    kind: str,
    scores: tuple[list[str], list[list[str]]],
    paired: list[dict[str, Any]],
) -> PageSection:
    table = PageTable(*scores, last_apart=True)
    differences = PageTable(
        ["minus the server model", "site", "difference in Dice", "p, Holm"],
        [
            [NAMES[row["strategy"]], row["site"], signed(row) or DASH, p_text(row["p_holm"])]
            for row in paired
        ],
        title="Differences, paired by patient",
        note="Negative: the modality’s server model is better than that reference.",
    )
    what = "organ" if kind == "organ" else "hospital"
    note = (
        f"Training leaves the {what} out and uses the other sites of the modality; “all "
        "modalities” uses every other site. Dice on the left-out sites’ test cases."
    )
    return PageSection(title, note, [table, differences])


def _matrix_section(rows: list[dict[str, Any]]) -> PageSection:
    figures = []
    for modality in sorted({row["modality"] for row in rows}):
        mine = [row for row in rows if row["modality"] == modality]
        cells = {(row["trained_on"], row["tested_on"]): (row["dice"], row["seen"]) for row in mine}
        figures.append(
            Figure(f"{modality}: trained on (rows), tested on (columns)", heatmap(cells), wide=True)
        )
    return PageSection(
        "Trained on × tested on",
        "Mean Dice of a model on a site’s test cases. Framed: the model was trained there.",
        figures=figures,
    )


def _score_table(
    scores: list[dict[str, Any]], cases: Mapping[str, Sized]
) -> tuple[list[str], list[list[str]]]:
    cells = {(row["claim"], row["site"]): row for row in scores}
    counts = {site: len(known) for site, known in cases.items()}
    counts[MEAN] = sum(counts.values())
    rows = [
        [site, str(counts[site]), *(estimate(cells[c, site]) for c in NAMES)]
        for site in _sites(scores)
    ]
    return ["left-out site", "test cases", *NAMES.values()], rows


def _sites(rows: Sequence[Row]) -> list[str]:
    return [*dict.fromkeys(row["site"] for row in rows if row["site"] != MEAN), MEAN]


def _mean(rows: Sequence[Row]) -> float | None:
    known = [value for row in rows if (value := number(row["dice"])) is not None]
    return sum(known) / len(known) if known else None


def overview_lines(out: Path) -> list[list[str]]:
    """Return the means over left-out sites as text: kind, model, Dice."""
    return [
        [row["left_out"], NAMES[row["claim"]], decimal(number(row["mean"]))]
        for row in load_csv(out / "tables" / "scores.csv")
        if row["site"] == MEAN
    ]
