"""The comparison: one HTML file, and its tables as CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flames import __version__
from flames.files import save_text
from flames.metrics.comparison import MEAN
from flames.metrics.paired import FEWEST
from flames.reports.compare.content import (
    BASELINE,
    KINDS,
    Comparison,
    commits_of,
    folds_of,
    load_comparison,
)
from flames.reports.compare.curves import (
    convergence_figures,
    convergence_rows,
    legend,
    reliability_figure,
)
from flames.reports.compare.failures import (
    case_rows,
    count_rows,
    failure_pictures,
    hardest_rows,
    lost_rows,
)
from flames.reports.compare.latex import latex_table
from flames.reports.compare.tables import (
    calibration_table,
    columns,
    cost_table,
    difference_table,
    latex_paired,
    latex_scores,
    overview_csv,
    overview_rows,
    paired_csv,
    presence_table,
    rounded,
    score_csv,
    site_table,
)
from flames.reports.numbers import DASH, decimal
from flames.reports.words import STRATEGIES
from flames.runs import RunFolder, save_csv

MEANS_BY_CASES = ("fedavg", "fedprox", "fedbn", "fedadam", "scaffold", "ditto", "apfl", "fedrep")
"""Strategies that share across modalities, weighted by cases."""
OUTVOTES = 0.7
"""Share of all training cases from which one modality has nearly the whole say in a mean."""


def write_comparison(
    out: Path,
    runs: Sequence[RunFolder],
    *,
    reference: str,
    prior: Sequence[dict[str, str]] = (),
) -> Path:
    """Write ``report.html`` and ``tables/`` into ``out``, and return the report's path.

    Args:
        out: Folder of the comparison.
        runs: Finished runs, or folders of which some are finished.
        reference: The strategy that the others are held against.
        prior: Rows of every site's prior on the same cases; none leaves it out.

    Raises:
        FlamesError: A run is not finished, or runs and prior do not belong together.
    """
    comparison = load_comparison(runs, reference=reference, prior=prior)
    _write_tables(out / "tables", comparison)
    page = environment().get_template("compare.html.j2").render(**_content(comparison))
    path = out / "report.html"
    save_text(path, page)
    return path


def environment() -> Environment:
    """Return how the templates of reports are filled."""
    found = Environment(
        loader=PackageLoader("flames", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["decimal"] = decimal
    return found


def _write_tables(folder: Path, comparison: Comparison) -> None:
    save_csv(folder / "overview.csv", overview_csv(comparison))
    save_csv(folder / "scores.csv", score_csv(comparison))
    save_csv(folder / "paired.csv", paired_csv(comparison))
    save_csv(folder / "convergence.csv", [rounded(r) for r in convergence_rows(comparison)])
    save_csv(folder / "cases.csv", [rounded(row) for row in case_rows(comparison)])
    save_csv(folder / "presence.csv", _by_strategy(comparison.presence))
    calibration = {name: rows for name, (rows, _) in comparison.calibration.items()}
    save_csv(folder / "calibration.csv", _by_strategy(calibration))
    for kind in KINDS:
        (folder / f"scores-{kind}.tex").unlink(missing_ok=True)  # of strategies asked for before
        if comparison.scores[kind]:
            head, rows = latex_scores(comparison, kind)
            text = latex_table(
                head,
                rows,
                caption=f"Dice of {kind} models on test cases, 95 % bootstrap intervals.",
                last_apart=True,
            )
            save_text(folder / f"scores-{kind}.tex", text)
    head, rows = latex_paired(comparison)
    caption = "Differences in Dice, paired by patient, mean over sites, 95 % intervals."
    save_text(folder / "paired.tex", latex_table(head, rows, caption=caption))


def _by_strategy(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"strategy": name} | rounded(row) for name, rows in found.items() for row in rows]


def _content(comparison: Comparison) -> dict[str, Any]:
    first = comparison.first
    return {
        "name": str(first.setting("name") or "federation"),
        "reference": comparison.reference,
        "baseline": BASELINE,
        "with_baseline": BASELINE in comparison.runs,
        "outweighed": _outweighed(comparison),
        "fewest": FEWEST,
        "folds": folds_of(first),
        "made_up": first.setting("made_up") is True,
        "facts": _facts(comparison),
        "strategies": [(name, STRATEGIES.get(name, "")) for name in comparison.runs],
        "overview": overview_rows(comparison),
        "sites": {kind: site_table(comparison, kind) for kind in KINDS},
        "names": {kind: list(comparison.scores[kind]) for kind in KINDS},
        "columns": {kind: columns(comparison, kind) for kind in KINDS},
        "paired": _paired(comparison),
        "sight": difference_table(comparison.sight),
        "charts": convergence_figures(comparison),
        "legend": legend(comparison),
        "presence": presence_table(comparison),
        "calibration": calibration_table(comparison),
        "reliability": reliability_figure(comparison),
        "costs": cost_table(comparison),
        "counts": count_rows(comparison),
        "hardest": hardest_rows(comparison),
        "lost": lost_rows(comparison),
        "pictures": failure_pictures(comparison),
        "config_text": first.config_text,
        "version": __version__,
        "dash": DASH,
    }


def _outweighed(comparison: Comparison) -> str:
    """Return a sentence on a modality that outvotes the others in a mean by cases; mostly none."""
    by_cases = [name for name in comparison.runs if name in MEANS_BY_CASES]
    cases: dict[str, int] = {}
    for fields in comparison.sites.values():
        modality, known = str(fields.get("modality")), fields.get("cases") or {}
        cases[modality] = cases.get(modality, 0) + int(known.get("train") or 0)
    most = max(cases, key=lambda modality: cases[modality], default="")
    share = cases.get(most, 0) / (sum(cases.values()) or 1)
    if not by_cases or len(cases) < 2 or share < OUTVOTES or "uniform" in comparison.runs:
        return ""
    return (
        f"{most} has {share:.0%} of the training cases, so what is weighted by cases across "
        f"modalities ({', '.join(by_cases)}) is nearly a model of {most}. Compare uniform too, in "
        "which sites count alike, before saying that modalities harm each other."
    )


def _paired(comparison: Comparison) -> dict[str, list[dict[str, str]]]:
    rows = difference_table(comparison.paired["personal"])
    return {
        "means": [row for row in rows if row["site"] == MEAN],
        "sites": [row for row in rows if row["site"] != MEAN],
    }


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    first = comparison.first
    runs = [records for every in comparison.runs.values() for records in every]
    seeds = sorted({int(records.summary["seed"]) for records in runs})
    test = sum(len(cases) for cases in comparison.groups.values())
    commits = commits_of(runs)
    return [
        ("Strategies", str(len(comparison.runs))),
        ("Runs", str(len(runs))),
        ("Repetitions", f"{len(seeds)} (seed {', '.join(map(str, seeds))})"),
        *([("Folds", str(folds))] if (folds := folds_of(first)) else []),
        ("Sites", str(len(comparison.sites))),
        ("Test cases", str(test)),
        ("Network", str(first.setting("network") or DASH)),
        ("Commit", ", ".join(commits) or DASH),
    ]
