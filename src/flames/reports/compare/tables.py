"""The numbers of a comparison as text cells, and as rows of CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flames.metrics.comparison import LEVEL, MEAN
from flames.reports.compare.content import KINDS, PRIOR, Comparison, commits_of
from flames.reports.compare.costs import cost_rows
from flames.reports.numbers import DASH, decimal, interval, is_number, megabytes, signed
from flames.reports.words import SENDS


def overview_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Return a row a strategy: everything that decides between them."""
    means = {row["strategy"]: row for row in comparison.paired["personal"] if row["site"] == MEAN}
    rows = []
    for name, tables in comparison.tables.items():
        scores = comparison.scores["personal"].get(name, [])
        paired = means.get(name, {})
        worst = comparison.worst.get(name) or {}
        presence = _of_mean(comparison.presence[name])
        errors = _of_mean(comparison.calibration[name][0])
        rows.append(
            {
                "strategy": name,
                "seeds": str(len(tables)),
                "dice": decimal(_of_mean(scores).get("mean")),
                "dice_interval": interval(_of_mean(scores)),
                "server": decimal(_of_mean(comparison.scores["server"].get(name, [])).get("mean")),
                "difference": signed(paired) or DASH,
                "p": p_text(paired.get("p_holm")),
                "harmed": harm_text(comparison, name),
                "worst": decimal(worst.get("mean")),
                "worst_site": str(worst.get("site", "")),
                "auc": decimal(presence.get("auc"), 2),
                "sensitivity": decimal(presence.get("sensitivity"), 2),
                "specificity": decimal(presence.get("specificity"), 2),
                "ece": decimal(errors.get("ece")),
                "ece_raised": decimal(errors.get("ece_raised")),
            }
        )
    return rows


def site_table(comparison: Comparison, kind: str) -> list[dict[str, Any]]:
    """Return a row a site and one of their mean: what it is, and a cell a strategy.

    A cell says whether the strategy is clearly above or below the reference there.
    """
    scores = {n: {r["site"]: r for r in rows} for n, rows in comparison.scores[kind].items()}
    paired = {(r["strategy"], r["site"]): r for r in comparison.paired[kind]}
    rows = []
    for site in [*comparison.sites, MEAN]:
        fields = comparison.sites.get(site, {})
        cells = [
            {
                "strategy": name,
                "value": decimal(mine.get(site, {}).get("mean")),
                "interval": interval(mine.get(site)),
                "mark": _mark(paired.get((name, site))),
            }
            for name, mine in scores.items()
        ]
        if PRIOR in columns(comparison, kind):
            mine = next(row for row in comparison.prior_scores if row["site"] == site)
            value, brackets = decimal(mine["mean"]), interval(mine)
            cells.append({"strategy": PRIOR, "value": value, "interval": brackets, "mark": ""})
        note = ", ".join(str(fields[k]) for k in ("organ", "modality") if fields.get(k))
        cases = len(comparison.groups.get(site, ())) or None
        rows.append({"site": site, "note": note, "cases": cases, "cells": cells})
    return rows


def columns(comparison: Comparison, kind: str) -> list[str]:
    """Return the columns of a table of sites: strategies, and beside personal models the prior."""
    prior = [PRIOR] if kind == "personal" and comparison.prior else []
    return [*comparison.scores[kind], *prior]


def difference_table(rows: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Return paired differences as text."""
    return [
        {
            "strategy": row["strategy"],
            "site": row["site"],
            "difference": signed(row) or DASH,
            "p": p_text(row["p_value"]),
            "p_holm": p_text(row["p_holm"]),
            "n": str(row["n"]),
            "mark": _mark(row),
        }
        for row in rows
    ]


def presence_table(comparison: Comparison) -> list[dict[str, Any]]:
    """Return AUC, sensitivity and specificity of each strategy at each site, as far as defined."""
    found = {n: {r["site"]: r for r in rows} for n, rows in comparison.presence.items()}
    rows = []
    for site in [*comparison.sites, MEAN]:
        cells = [_presence_cell(found[name].get(site, {})) for name in comparison.runs]
        if any(cell != DASH for cell in cells):
            rows.append({"site": site, "cells": cells})
    return rows


def calibration_table(comparison: Comparison) -> list[dict[str, Any]]:
    """Return both calibration errors of each strategy at each site; none where unrecorded."""
    found = {n: {r["site"]: r for r in t[0]} for n, t in comparison.calibration.items()}
    rows = []
    for site in [*comparison.sites, MEAN]:
        cells = [
            {
                "all": decimal(found[name].get(site, {}).get("ece")),
                "raised": decimal(found[name].get(site, {}).get("ece_raised")),
            }
            for name in comparison.runs
        ]
        if any(cell["all"] != DASH for cell in cells):
            rows.append({"site": site, "cells": cells})
    return rows


def cost_table(comparison: Comparison) -> list[dict[str, str]]:
    """Return what each strategy sends and keeps, in words and megabytes."""
    return [
        {
            "strategy": row["strategy"],
            "steps": decimal(row["steps"], 0),
            "minutes": decimal(row["minutes"], 1),
            "up": megabytes(row["up"]),
            "down": megabytes(row["down"]),
            "total": megabytes(row["total"]),
            "client": megabytes(row["client"]),
            "server": megabytes(row["server"]),
            "words": SENDS.get(row["strategy"].removeprefix("modality-"), ""),
        }
        for row in cost_rows(comparison)
    ]


def score_csv(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the scores as rows of ``scores.csv``."""
    rows = []
    for measure, scores in (("dice", comparison.scores), ("nsd", comparison.surface_scores)):
        for kind in KINDS:
            for name, found in scores[kind].items():
                start = {"measure": measure, "model": kind, "strategy": name}
                start["seeds"] = str(len(comparison.tables[name]))
                rows += [start | rounded(row) for row in found]
    start = {"measure": "dice", "model": "none", "strategy": PRIOR, "seeds": "0"}
    return rows + [start | rounded(row) for row in comparison.prior_scores]


def paired_csv(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the differences as rows of ``paired.csv``."""
    rows = [
        {"model": kind, "reference": comparison.reference} | rounded(row)
        for kind in KINDS
        for row in comparison.paired[kind]
    ]
    start = {"model": "personal", "reference": PRIOR}
    return rows + [start | rounded(row) for row in comparison.sight]


def overview_csv(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one row a strategy with numbers, not text."""
    costs = {row["strategy"]: row for row in cost_rows(comparison)}
    rows = []
    for name in comparison.runs:
        scores = _of_mean(comparison.scores["personal"].get(name, []))
        harm = comparison.harm.get(name, {})
        worst = comparison.worst.get(name) or {}
        row = {
            "strategy": name,
            "seeds": len(comparison.tables[name]),
            "dice": scores.get("mean"),
            "server_dice": _of_mean(comparison.scores["server"].get(name, [])).get("mean"),
            "sites_below_local": harm.get("below"),
            "sites_clearly_below_local": harm.get("clearly"),
            "worst_site": worst.get("site"),
            "worst_dice": worst.get("mean"),
        }
        row |= _without_site(
            _of_mean(comparison.presence[name]), ("auc", "sensitivity", "specificity")
        )
        row |= _without_site(_of_mean(comparison.calibration[name][0]), ("ece", "ece_raised"))
        row |= {f"bytes_{k}" if k not in ("steps", "minutes") else k: v
                for k, v in costs[name].items() if k != "strategy"}  # fmt: skip
        rows.append(rounded(row | {"commit": " ".join(commits_of(comparison.runs[name]))}))
    return rows


def latex_scores(comparison: Comparison, kind: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of sites and strategies for a paper."""
    names = columns(comparison, kind)
    rows = [
        [row["site"], *(" ".join((c["value"], c["interval"])).strip() for c in row["cells"])]
        for row in site_table(comparison, kind)
    ]
    return ["site", *names], rows


def latex_paired(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the differences of the means for a paper."""
    rows = [
        [row["strategy"], row["difference"], row["p_holm"], harm_text(comparison, row["strategy"])]
        for row in difference_table(comparison.paired["personal"])
        if row["site"] == MEAN
    ]
    return ["strategy", f"minus {comparison.reference}", "p (Holm)", "sites harmed"], rows


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its numbers to six decimals, so that three of them are right."""
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}


def harm_text(comparison: Comparison, name: str) -> str:
    """Return such as ``3 of 9 (1 clearly)``; a dash for `local` itself or without it."""
    harm = comparison.harm.get(name)
    if harm is None:
        return DASH
    return f"{harm['below']} of {harm['sites']} ({harm['clearly']} clearly)"


def p_text(value: Any) -> str:
    """Return a p-value to three decimals.

    >>> p_text(0.0312), p_text(0.0001), p_text(None)
    ('0.031', '< 0.001', '–')
    """
    if not is_number(value):
        return DASH
    return "< 0.001" if value < 0.001 else decimal(value)


def _presence_cell(row: dict[str, Any]) -> str:
    values = [decimal(row.get(key), 2) for key in ("auc", "sensitivity", "specificity")]
    return " / ".join(values) if any(value != DASH for value in values) else DASH


def _of_mean(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return next((row for row in rows if row["site"] == MEAN), {})


def _without_site(row: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: row.get(key) for key in keys}


def _mark(row: dict[str, Any] | None) -> str:
    if not row or row["p_holm"] is None or row["p_holm"] >= LEVEL:
        return ""
    return "above" if row["mean"] > 0 else "below"
