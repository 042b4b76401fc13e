"""The rows of ``cases.csv`` become the ``scores`` and ``means`` of ``summary.json``.

One score is one model at one site: means over its test cases. One mean is one kind of model over
several sites: the site's mean first, then the mean of sites. What is drawn for an interval is the
case, or the patient (column ``group``) with all its cases. Undefined cells are left out of a mean
and counted beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from flames.metrics.statistics import (
    CONFIDENCE,
    RESAMPLES,
    mean_over_sites,
    presence_auc,
    sensitivity,
    specificity,
)

Row: TypeAlias = Mapping[str, Any]
MEASURES = ("dice", "iou", "hd95", "nsd", "volume_error")
ALL_SITES = "all sites"

# Means over different units mean nothing: what must be the same for a measure to have a mean.
_SAME = {
    "hd95": ("distance_unit",),
    "nsd": ("distance_unit", "nsd_tolerance"),
    "volume_error": ("volume_unit",),
}


def score_table(
    rows: Iterable[Row],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[dict[str, Any]]:
    """Return one record a model and site, sorted by kind, model and site.

    Each measure is ``{"mean", "low", "high", "n"}``, ``n`` the cases where it is defined. Beside
    them: ``presence``, and counts of ``empty_and_clear`` (no tumour, none predicted), ``missed``
    (tumour, nothing predicted) and ``false_alarm`` (no tumour, some predicted).

    Args:
        rows: Rows of ``cases.csv``, as text or as values; an empty cell or None is undefined.
        seed: Decides the bootstrap.
        resamples: Bootstrap samples.
        confidence: Coverage of the intervals.
    """
    return [
        {
            "model": model,
            "model_kind": kind,
            "site": site,
            "modality": _joined(cell, "modality"),
            "organ": _joined(cell, "organ"),
            "cases": len(cell),
            **_measures({site: cell}, seed=seed, resamples=resamples, confidence=confidence),
            "presence": _presence(cell),
            "empty_and_clear": sum(not t and not p for t, p in _outcomes(cell)),
            "missed": sum(t and not p for t, p in _outcomes(cell)),
            "false_alarm": sum(p and not t for t, p in _outcomes(cell)),
        }
        for (kind, model, site), cell in _by(rows, "model_kind", "model", "site").items()
    ]


def mean_table(
    rows: Iterable[Row],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[dict[str, Any]]:
    """Return one record a kind of model and group of sites: ``all sites``, then each modality.

    ``n`` of a measure counts cases, ``sites`` counts sites. Where several models of a kind score
    one site, the site's mean is over all of them, and a case is drawn with all its scores. A
    measure whose unit differs between sites has no mean (``n = 0``). Presence is the mean over the
    sites where it is defined.

    Args:
        rows: Rows of ``cases.csv``, as text or as values; an empty cell or None is undefined.
        seed: Decides the bootstrap.
        resamples: Bootstrap samples.
        confidence: Coverage of the intervals.
    """
    means = []
    for (kind,), of_kind in _by(rows, "model_kind").items():
        groups = {ALL_SITES: of_kind}
        groups |= {modality: part for (modality,), part in _by(of_kind, "modality").items()}
        for group, part in groups.items():
            sites = {site: cell for (site,), cell in _by(part, "site").items()}
            means.append(
                {
                    "model_kind": kind,
                    "group": group,
                    "sites": len(sites),
                    **_measures(sites, seed=seed, resamples=resamples, confidence=confidence),
                    "presence": _mean_presence([_presence(cell) for cell in sites.values()]),
                }
            )
    return means


def summary_tables(
    rows: Iterable[Row],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    given: Sequence[dict[str, Any]] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Return ``scores`` and ``means``, as ``summary.json`` holds them.

    Args:
        rows: Rows of ``cases.csv``, as text or as values; an empty cell or None is undefined.
        seed: Decides the bootstrap.
        resamples: Bootstrap samples.
        confidence: Coverage of the intervals.
        given: Records of `score_table` from sites that give no row. A mean that one of them is
            part of has no interval, since there is no case to draw.
    """
    rows = list(rows)
    scores = score_table(rows, seed=seed, resamples=resamples, confidence=confidence)
    means = mean_table(rows, seed=seed, resamples=resamples, confidence=confidence)
    if given:
        scores = sorted([*scores, *given], key=lambda s: (s["model_kind"], s["model"], s["site"]))
        known = {(mean["model_kind"], mean["group"]): mean for mean in means}
        touched = {(s["model_kind"], group) for s in given for group in (ALL_SITES, s["modality"])}
        means = [
            _mean_of_scores(scores, *place) if place in touched else known[place]
            for place in sorted(known.keys() | touched, key=lambda p: (p[0], p[1] != ALL_SITES, p))
        ]
    return {"scores": scores, "means": means}


def values_by_site(
    rows: Iterable[Row], measure: str, *, model_kind: str
) -> dict[str, dict[str, float | None]]:
    """Return site → case id → value of one kind of model, for a paired difference.

    Raises:
        ValueError: Two models of the kind score one case: pass the rows of one.
    """
    values: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row["model_kind"] == model_kind:
            cases = values.setdefault(row["site"], {})
            if row["case_id"] in cases:
                raise ValueError(
                    f"two {model_kind} models score {row['case_id']} of {row['site']}: "
                    "pass the rows of one"
                )
            cases[row["case_id"]] = number(row[measure])
    return values


def groups_by_site(rows: Iterable[Row]) -> dict[str, dict[str, Hashable]]:
    """Return site → case id → the patient, or the case itself where no patient is known."""
    groups: dict[str, dict[str, Hashable]] = {}
    for row in rows:
        groups.setdefault(row["site"], {})[row["case_id"]] = _unit(row)
    return groups


def number(cell: Any) -> float | None:
    """Return a cell as a number; an empty cell and None are undefined.

    >>> number("0.25"), number(""), number(True)
    (0.25, None, 1.0)
    """
    return None if cell is None or cell == "" else float(cell)


def _measures(
    sites: Mapping[str, Sequence[Row]], *, seed: int, resamples: int, confidence: float
) -> dict[str, Any]:
    rows = [row for cell in sites.values() for row in cell]
    units = {site: [_unit(row) for row in cell] for site, cell in sites.items()}
    record: dict[str, Any] = {}
    for measure in MEASURES:
        comparable = has_mean(rows, measure)
        values = {
            site: [number(row[measure]) if comparable else None for row in cell]
            for site, cell in sites.items()
        }
        record[measure] = mean_over_sites(
            values, seed=seed, groups_by_site=units, resamples=resamples, confidence=confidence
        ).as_dict()
    tolerance = _only(rows, "nsd_tolerance")
    return record | {
        "distance_unit": _only(rows, "distance_unit"),
        "nsd_tolerance": None if tolerance is None else float(tolerance),
        "volume_unit": _only(rows, "volume_unit"),
    }


def _mean_of_scores(scores: Sequence[dict[str, Any]], kind: str, group: str) -> dict[str, Any]:
    """Return a record of `mean_table` from records of `score_table`, without intervals."""
    part = [s for s in scores if s["model_kind"] == kind and group in (ALL_SITES, s["modality"])]
    sites = _by(part, "site")
    record: dict[str, Any] = {"model_kind": kind, "group": group, "sites": len(sites)}
    for measure in MEASURES:
        comparable = has_mean(part, measure)
        parts = [_pooled(cell, measure) for cell in sites.values()] if comparable else []
        found = [(mean, n) for mean, n in parts if mean is not None]
        mean = sum(m for m, _ in found) / len(found) if found else None
        record[measure] = {"mean": mean, "low": None, "high": None, "n": sum(n for _, n in found)}
    tolerance = _only(part, "nsd_tolerance")
    presence = [s["presence"] for s in part]
    return record | {
        "distance_unit": _only(part, "distance_unit"),
        "nsd_tolerance": None if tolerance is None else float(tolerance),
        "volume_unit": _only(part, "volume_unit"),
        "presence": _mean_presence(presence),
    }


def _pooled(scores: Sequence[Row], measure: str) -> tuple[float | None, int]:
    """Return one site's mean over all its models' cases, and how many there are."""
    found = [s[measure] for s in scores if s[measure]["mean"] is not None]
    total = sum(part["n"] for part in found)
    mean = sum(part["mean"] * part["n"] for part in found) / total if total else None
    return mean, total


def _presence(cell: Sequence[Row]) -> dict[str, float | int | None]:
    present, predicted = zip(*_outcomes(cell), strict=True)
    scored = [(p, number(r["presence_score"])) for p, r in zip(present, cell, strict=True)]
    pairs = [(p, s) for p, s in scored if s is not None]
    return {
        "auc": presence_auc([p for p, _ in pairs], [s for _, s in pairs]),
        "sensitivity": sensitivity(present, predicted),
        "specificity": specificity(present, predicted),
        "with_tumour": sum(present),
        "without_tumour": len(present) - sum(present),
    }


def _mean_presence(records: Sequence[Mapping[str, float | int | None]]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for name in ("auc", "sensitivity", "specificity"):
        values = [value for r in records if (value := r[name]) is not None]
        means[name] = sum(values) / len(values) if values else None
    for name in ("with_tumour", "without_tumour"):
        means[name] = sum(r[name] or 0 for r in records)
    return means


def _outcomes(cell: Sequence[Row]) -> list[tuple[bool, bool]]:
    return [(bool(number(r["tumour_present"])), bool(number(r["tumour_predicted"]))) for r in cell]


def _by(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(row[column] for column in columns), []).append(row)
    return dict(sorted(parts.items()))


def _joined(rows: Sequence[Row], column: str) -> str:
    return ", ".join(sorted({row[column] for row in rows}))


def has_mean(rows: Sequence[Row], measure: str) -> bool:
    """Return whether a measure has one unit in all rows, so that a mean of it means something."""
    return all(_only(rows, column) is not None for column in _SAME.get(measure, ()))


def _only(rows: Sequence[Row], column: str) -> Any:
    """Return the one value of a column, or None where rows differ."""
    values = {str(row[column]): row[column] for row in rows}
    return next(iter(values.values())) if len(values) == 1 else None


def _unit(row: Row) -> Hashable:
    # Marked, because a patient may be named like another patient's case.
    return ("group", row["group"]) if row.get("group") else ("case", row["case_id"])
