"""Left-out organs and hospitals as tables, differences and a matrix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import product
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
    "everything": "all modalities, by cases",
    "alike": "all modalities, sites alike",
    "prior": "no image",
}
REFERENCES = {"server": "the server model", "prior": "no image"}
"""What differences are to, each a question of its own: which model, and does it see at all?"""
KINDS = {
    "organ": "An organ that nobody trained on",
    "hospital": "A hospital that did not take part",
    "known-organ": "Of these, hospitals whose organ others hold",
}
NOTES = {
    "server": "Negative: the modality’s server model is better than that reference.",
    "prior": "Not above zero: there the model does no better than a mask that does not look, and "
    "its Dice says where tumours lie, not that it finds them.",
}
CASES = {
    "all": "every case of the left-out sites",
    "off-centre": "every case of the left-out sites, seen off-centre",
    "test": "the left-out sites’ test cases",
}
"""What a table's models are scored on: those that never saw the site on all of it, as it is and
seen from its corners, all models on its test cases."""
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
        (out / "tables" / f"{kind}.tex").unlink(missing_ok=True)  # of what was left out before
        mine = _of(kind, [row for row in rows if row["claim"] in NAMES])
        if mine:
            found, paired = _kind(mine, resamples)
            tables = [_score_table(found, groups_by_site(_on(mine, on)), on) for on in CASES]
            sections.append(_section(title, kind, tables, paired))
            texts = [
                latex_table(*table, caption=f"{title}: Dice on {CASES[on]}.", last_apart=True)
                for on, table in zip(CASES, tables, strict=True)
            ]
            save_text(out / "tables" / f"{kind}.tex", "\n".join(texts))
            scores += [{"left_out": kind} | rounded(row) for row in found]
            differences += [{"left_out": kind} | rounded(row) for row in paired]
    matrices = matrix_rows(rows)
    save_csv(out / "tables" / "scores.csv", scores)
    save_csv(out / "tables" / "paired.csv", differences)
    save_csv(out / "tables" / "matrix.csv", [rounded(row) for row in matrices])
    sections.append(_matrix_section(matrices))
    seeds = sorted({row["seed"] for row in rows}, key=int)
    page = Page(
        kicker="unseen organs and hospitals",
        name=name,
        lead="Every model is scored on all cases of sites that it was not trained on, and on their "
        "test cases beside the model of that site alone.",
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
    """Return a row a model and site: Dice of models of one site, and of all but those left out.

    Dice is the mean of the seeds' means; ``seen`` says whether the model was trained on the site.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["claim"] in ("alone", "server") and row["view"] == "whole":
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
    """Return scores and differences; a difference is over all cases that both models have.

    What is seen off-centre is a question of its own, with a Holm correction of its own.
    """
    groups = groups_by_site(rows)
    seed = min(int(row["seed"]) for row in rows)
    scores = [
        {"on": on, "claim": claim} | row
        for on in CASES
        for claim in _scored(on)
        for row in site_scores(
            _values(_on(rows, on), claim), groups, seed=seed, resamples=resamples
        )
    ]
    paired = []
    for view, reference in product(("all", "off-centre"), REFERENCES):
        claims = [c for c in NAMES if c != "prior" or c == reference]
        mine = {c: found for c in claims if (found := _values(_on(rows, view), c))}
        differences = paired_rows(mine, groups, reference=reference, seed=seed, resamples=resamples)
        for row in differences:
            on = "test" if row["strategy"] == "own" else view
            paired.append({"on": on, "reference": reference} | row)
    return scores, paired


def _scored(on: str) -> list[str]:
    """Return whose scores there are: a site's own model only has those on its test cases."""
    return [claim for claim in NAMES if on == "test" or claim != "own"]


def _on(rows: Sequence[Row], on: str) -> list[Row]:
    view = "off-centre" if on == "off-centre" else "whole"
    seen = [row for row in rows if row["view"] == view]
    return [row for row in seen if row["split"] == "test"] if on == "test" else seen


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
    scores: Sequence[tuple[list[str], list[list[str]]]],
    paired: list[dict[str, Any]],
) -> PageSection:
    tables = [
        PageTable(*table, title=f"Dice on {words}", last_apart=True)
        for words, table in zip(CASES.values(), scores, strict=True)
    ]
    differences = [
        PageTable(
            [f"minus {words}", "site", "cases", "difference in Dice", "p, Holm"],
            _difference_rows(paired, reference, means=True),
            title=f"Differences to {words}, paired by patient",
            note=NOTES[reference],
            by_site=_difference_rows(paired, reference, means=False),
        )
        for reference, words in REFERENCES.items()
    ]
    what = "organ" if kind == "organ" else "hospital"
    note = (
        f"Training leaves the {what} out and uses the other sites of the modality; “all "
        "modalities” uses every other site, weighted by its cases or each alike. “No image” is one "
        "mask for all images: where tumours lie at every other site. These saw no case of the "
        "left-out sites, so all count; the model of the site alone has its test cases. Seen "
        "off-centre, an image is read as four overlapping crops from its corners: what scores by "
        "the place of tumours alone loses it."
    )
    return PageSection(title, note, [*tables, *differences])


def _difference_rows(paired: Sequence[Row], reference: str, *, means: bool) -> list[list[str]]:
    return [
        [NAMES[row["strategy"]], row["site"], row["on"], signed(row) or DASH, p_text(row["p_holm"])]
        for row in paired
        if row["reference"] == reference and (row["site"] == MEAN) == means
    ]


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
        "Mean Dice of a model on all of a site’s cases. Framed: the model was trained there, so on "
        "its test cases.",
        figures=figures,
    )


def _score_table(
    scores: list[dict[str, Any]], cases: Mapping[str, Sized], on: str
) -> tuple[list[str], list[list[str]]]:
    cells = {(row["claim"], row["site"]): row for row in scores if row["on"] == on}
    counts = {site: len(known) for site, known in cases.items()}
    counts[MEAN] = sum(counts.values())
    rows = [
        [site, str(counts[site]), *(estimate(cells[c, site]) for c in _scored(on))]
        for site in _sites(scores)
    ]
    head = "test cases" if on == "test" else "cases"
    return ["left-out site", head, *(NAMES[claim] for claim in _scored(on))], rows


def _sites(rows: Sequence[Row]) -> list[str]:
    return [*dict.fromkeys(row["site"] for row in rows if row["site"] != MEAN), MEAN]


def _mean(rows: Sequence[Row]) -> float | None:
    seeds: dict[str, list[float]] = {}
    for row in rows:
        if (value := number(row["dice"])) is not None:
            seeds.setdefault(row["seed"], []).append(value)
    means = [sum(known) / len(known) for known in seeds.values()]
    return sum(means) / len(means) if means else None


def overview_lines(out: Path) -> list[list[str]]:
    """Return the means over left-out sites as text: kind, cases, model, Dice."""
    return [
        [row["left_out"], row["on"], NAMES[row["claim"]], decimal(number(row["mean"]))]
        for row in load_csv(out / "tables" / "scores.csv")
        if row["site"] == MEAN
    ]
