"""Strategies side by side: the numbers of a comparison, from the test cases of its runs.

A strategy's mean is that of its seeds' means, and intervals draw the same cases (patients where
known) in all of them: a case counts once however often training was repeated.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from flames.metrics.calibration import BINS, RAISED, calibration_error
from flames.metrics.paired import paired_difference, paired_difference_over_sites
from flames.metrics.statistics import (
    RESAMPLES,
    Value,
    bootstrap_interval,
    holm,
    mean_over_sites,
    presence_auc,
    sensitivity,
    specificity,
)
from flames.metrics.tables import Row, number, values_by_site

Values = Mapping[str, Mapping[str, Value]]
"""Site → case id → value, or its values by repetition of training."""
Groups = Mapping[str, Mapping[str, Hashable]]
MEAN = "mean over sites"
LEVEL = 0.05


def by_repetition(tables: Sequence[Mapping[str, Mapping[str, float | None]]]) -> Values:
    """Return each case's values in all tables, one a repetition; None where it lacks the case.

    >>> by_repetition([{"s": {"x": 0.5, "y": None}}, {"s": {"x": 0.75, "y": 0.0}}])
    {'s': {'x': (0.5, 0.75), 'y': (None, 0.0)}}
    """
    return {
        site: {
            case: tuple(table.get(site, {}).get(case) for table in tables)
            for case in sorted(set().union(*(table.get(site, {}) for table in tables)))
        }
        for site in sorted(set().union(*tables))
    }


def case_values(tables: Sequence[Sequence[Row]], measure: str, *, model_kind: str) -> Values:
    """Return site → case → one measure by seed; empty where no model is of the kind."""
    return by_repetition([values_by_site(t, measure, model_kind=model_kind) for t in tables])


def site_scores(
    values: Values, groups: Groups, *, seed: int, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """Return ``site, mean, low, high, n`` for each site and for the mean over sites."""
    rows = []
    for site, cases in values.items():
        units = [groups[site][case] for case in cases]
        score = bootstrap_interval(
            list(cases.values()), seed=seed, groups=units, resamples=resamples
        )
        rows.append({"site": site} | score.as_dict())
    mean = mean_over_sites(
        {site: list(cases.values()) for site, cases in values.items()},
        seed=seed,
        groups_by_site={s: [groups[s][case] for case in cases] for s, cases in values.items()},
        resamples=resamples,
    )
    return [*rows, {"site": MEAN} | mean.as_dict()]


def paired_rows(
    values: Mapping[str, Values],
    groups: Groups,
    *,
    reference: str,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[dict[str, Any]]:
    """Return each strategy minus ``reference``, by site and in the mean over sites.

    ``p_holm`` corrects for all strategies among the means, and for all strategies and sites among
    the sites. Both are None, as the interval is, where too few patients were compared.
    """
    theirs = values[reference]
    means: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for name, mine in values.items():
        if name == reference:
            continue
        for site in sorted(set(mine) & set(theirs)):
            found = paired_difference(
                mine[site], theirs[site], seed=seed, groups=groups[site], resamples=resamples
            )
            rows.append({"strategy": name, "site": site} | found.as_dict())
        over = paired_difference_over_sites(
            mine, theirs, seed=seed, groups_by_site=groups, resamples=resamples
        )
        means.append({"strategy": name, "site": MEAN} | over.as_dict())
    for family in (means, rows):
        tested = [row for row in family if row["p_value"] is not None]
        corrected = holm([row["p_value"] for row in tested])
        for row in family:
            row["p_holm"] = None
        for row, p_value in zip(tested, corrected, strict=True):
            row["p_holm"] = p_value
    return means + rows


def harmed(rows: Sequence[Mapping[str, Any]], strategy: str) -> dict[str, int]:
    """Return at how many sites a strategy lies below the reference of ``rows``.

    ``below`` counts means, ``clearly`` those whose interval leaves zero out and whose p-value says
    so too, at a site that has enough patients for a test, ``sites`` all.
    """
    mine = [r for r in rows if r["strategy"] == strategy and r["site"] != MEAN]
    known = [r for r in mine if r["mean"] is not None]
    tested = [r for r in known if r["p_value"] is not None]
    clearly = [r for r in tested if r["p_value"] <= LEVEL and (r["high"] or 0) < 0]
    return {
        "below": sum(r["mean"] < 0 for r in known),
        "clearly": len(clearly),
        "sites": len(known),
    }


def worst_site(scores: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the site with the lowest mean, the first of equals; None without a score."""
    sites = [r for r in scores if r["site"] != MEAN and r["mean"] is not None]
    return min(sites, key=lambda r: (r["mean"], r["site"]), default=None)


def presence_rows(tables: Sequence[Sequence[Row]], *, model_kind: str) -> list[dict[str, Any]]:
    """Return AUC, sensitivity and specificity by site, means over seeds, then over sites.

    Each is None where a site lacks the cases that it is made of, and in the mean left out there.
    """
    found: dict[str, list[dict[str, float | None]]] = {}
    for table in tables:
        sites: dict[str, list[Row]] = {}
        for row in table:
            if row["model_kind"] == model_kind:
                sites.setdefault(row["site"], []).append(row)
        for site, rows in sites.items():
            found.setdefault(site, []).append(_presence(rows))
    rows_out: list[dict[str, Any]] = [
        {"site": site} | _means(every) for site, every in sorted(found.items())
    ]
    return [*rows_out, {"site": MEAN} | _means(rows_out)] if rows_out else []


def calibration_rows(
    tables: Sequence[Sequence[Row]], *, model_kind: str
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
    """Return the calibration error by site, means over seeds, and one pooled reliability table.

    In the pooled table every site and seed weighs the same, whatever its number of pixels.
    """
    errors: dict[str, list[dict[str, float | None]]] = {}
    pooled: list[np.ndarray] = []
    for rows in tables:
        sites: dict[str, np.ndarray] = {}
        for row in rows:
            if str(row["model"]).startswith(model_kind):
                table = sites.setdefault(row["site"], np.zeros((BINS, 3)))
                values = [number(row[key]) or 0.0 for key in ("pixels", "probability", "tumour")]
                table[int(row["bin"])] += values
        for site, table in sites.items():
            errors.setdefault(site, []).append(
                {
                    "ece": calibration_error(table),
                    "ece_raised": calibration_error(table, first_bin=RAISED),
                }
            )
            pooled.append(table / table[:, 0].sum())
    out: list[dict[str, Any]] = [{"site": s} | _means(e) for s, e in sorted(errors.items())]
    if not out:
        return [], None
    return [*out, {"site": MEAN} | _means(out)], np.sum(pooled, axis=0)


def _presence(rows: Sequence[Row]) -> dict[str, float | None]:
    present = [bool(number(r["tumour_present"])) for r in rows]
    predicted = [bool(number(r["tumour_predicted"])) for r in rows]
    scores = [number(r["presence_score"]) or 0.0 for r in rows]
    return {
        "auc": presence_auc(present, scores),
        "sensitivity": sensitivity(present, predicted),
        "specificity": specificity(present, predicted),
    }


def _means(records: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    keys = [key for key in records[0] if key != "site"]
    means: dict[str, float | None] = {}
    for key in keys:
        known = [r[key] for r in records if r[key] is not None]
        means[key] = sum(known) / len(known) if known else None
    return means
