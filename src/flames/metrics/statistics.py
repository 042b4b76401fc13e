"""Means with intervals, p-values of many tests, and how well presence is told.

The interval of a mean is a percentile bootstrap over cases, drawn from a seed that the caller
passes. Cases of one patient are not independent: where ``groups`` names patients, patients are
drawn, each with all its cases. Undefined values (None) are left out; ``n`` counts the rest. The
order of the cases never changes a result. Where training was repeated, a case has a value a
repetition; the mean is that of the repetitions' means, with the same patients drawn in all.
Differences between methods are in `flames.metrics.paired`.

B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, Ch. 13 (percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
# Bounds the index array of one draw to 32 MB, however many cases there are.
_INDICES_AT_ONCE = 4_000_000

Value = float | None | Sequence[float | None]
"""Of a case: one, or one a repetition of training."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval, if it has one; all None when nothing was defined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Cases that the mean is over."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields, as ``summary.json`` writes them."""
        return asdict(self)


def bootstrap_interval(
    values: Iterable[Value],
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean of the defined values with its percentile interval.

    One case, or one group, gives ``low = high = mean``; no defined value gives None with ``n = 0``.

    Args:
        values: One a case, or one a case and repetition; None is undefined.
        seed: Decides the draw.
        groups: The patient of each case; None draws cases.
        resamples: Bootstrap samples.
        confidence: Coverage, between 0 and 1.

    >>> bootstrap_interval([0.25, 0.25, None, 1.0], seed=1).mean  # 1.5/3
    0.5
    >>> bootstrap_interval([0.7], seed=1)
    Interval(mean=0.7, low=0.7, high=0.7, n=1)
    """
    return mean_over_sites(
        {"": list(values)},
        seed=seed,
        groups_by_site=None if groups is None else {"": groups},
        resamples=resamples,
        confidence=confidence,
    )


def mean_over_sites(
    values_by_site: Mapping[str, Sequence[Value]],
    *,
    seed: int,
    groups_by_site: Mapping[str, Sequence[Hashable]] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean over sites of the sites' means, drawing cases within each site.

    ``m = (1/S) Σ_s mean(values of s)``: a small site counts as much as a large one. Sites are
    fixed, not drawn: the interval speaks of other patients at these sites, not of other sites.
    There is none where a site has a single patient: nobody knows how others would differ there.
    Sites without a defined value are left out. One site is `bootstrap_interval`.

    >>> mean_over_sites({"a": [0.0, 0.5], "b": [1.0, 1.0, 1.0]}, seed=1).mean  # (0.25 + 1)/2
    0.625
    """
    sites = _defined_sites(values_by_site, groups_by_site)
    if not sites:
        return Interval(None, None, None, 0)
    mean, draws = _mean_and_draws(sites, seed, resamples)
    number = _number(values_by_site)
    if len(sites) > 1 and any(len(units) < 2 for units in sites):
        return Interval(mean, None, None, number)
    return Interval(mean, *_percentiles(draws, mean, confidence), number)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them, in the order given.

    With ``p_(1) ≤ … ≤ p_(m)``: ``p̃_(i) = max_{j ≤ i} min(1, (m − j + 1)·p_(j))``. One p-value is
    itself; none gives an empty list.

    S. Holm, Scand J Statist 6(2), 1979.

    >>> holm([0.04, 0.01, 0.03])  # 0.01·3; 0.03·2; 0.04·1 is below the one before
    [0.06, 0.03, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def presence_auc(present: Sequence[bool | int], scores: Sequence[float]) -> float | None:
    """Return the area under the ROC curve of the cases' scores; None when one class is missing.

    The chance that a case with tumour scores above one without, ties counting half.

    J. A. Hanley and B. J. McNeil, Radiology 143(1), 1982.

    >>> presence_auc([1, 1, 0, 0, 0], [0.9, 0.4, 0.4, 0.5, 0.1])  # (3 + 0.5 + 0 + 1)/6
    0.75
    """
    if len({bool(p) for p in present}) < 2:
        return None
    # Loading scikit-learn takes a second, which reading a table need not cost.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([bool(p) for p in present], list(scores)))


def sensitivity(present: Sequence[bool | int], predicted: Sequence[bool | int]) -> float | None:
    """Return the share of cases with tumour where tumour was predicted; None without such a case.

    >>> sensitivity([1, 1, 1, 0], [1, 0, 1, 1])  # 2/3
    0.6666666666666666
    """
    hits = [bool(q) for p, q in zip(present, predicted, strict=True) if p]
    return sum(hits) / len(hits) if hits else None


def specificity(present: Sequence[bool | int], predicted: Sequence[bool | int]) -> float | None:
    """Return the share of cases without tumour where none was predicted; None without such a case.

    >>> specificity([0, 0, 0, 0, 1], [1, 0, 0, 0, 0])  # 3/4
    0.75
    """
    return sensitivity([not p for p in present], [not q for q in predicted])


def repeated(value: Value) -> Sequence[float | None]:
    """Return a case's values, one a repetition of training."""
    return (value,) if value is None or isinstance(value, float | int) else value


def defined(value: Value) -> bool:
    """Return whether any repetition defines a case's value."""
    return any(v is not None for v in repeated(value))


def mean_of_case(value: Value) -> float | None:
    """Return the mean of a case's values over the repetitions that define it.

    >>> mean_of_case((0.5, None, 1.0))
    0.75
    """
    known = [v for v in repeated(value) if v is not None]
    return sum(known) / len(known) if known else None


def unit_tables(values: Sequence[Value], groups: Sequence[Hashable]) -> dict[Hashable, np.ndarray]:
    """Return sum and number of each group's defined values by repetition, ``(2, K)`` float64.

    Raises:
        ValueError: Cases have different numbers of repetitions.
    """
    found: dict[Hashable, list[Sequence[float | None]]] = {}
    for value, group in zip(values, groups, strict=True):
        found.setdefault(group, []).append(repeated(value))
    return {
        group: np.array(
            [
                (math.fsum(v for v in column if v is not None), sum(v is not None for v in column))
                for column in zip(*cases, strict=True)
            ]
        ).T
        for group, cases in found.items()
    }


def _defined_sites(
    values_by_site: Mapping[str, Sequence[Value]],
    groups_by_site: Mapping[str, Sequence[Hashable]] | None,
) -> list[np.ndarray]:
    """Return sums and numbers by drawing unit, ``(U, 2, K)``, for each site with any value."""
    sites = []
    for site in sorted(values_by_site):
        values = values_by_site[site]
        groups = range(len(values)) if groups_by_site is None else groups_by_site[site]
        units = [u for u in unit_tables(values, groups).values() if u[1].any()]
        if units:
            # Sorted, so that the draw does not depend on the order of the cases.
            sites.append(np.array(sorted(units, key=lambda unit: unit.T.tolist())))
    return sites


def _number(values_by_site: Mapping[str, Sequence[Value]]) -> int:
    """Return how many cases have a value in any repetition."""
    return sum(defined(value) for values in values_by_site.values() for value in values)


def mean_of_repetitions(totals: np.ndarray) -> np.ndarray:
    """Return the mean over repetitions of sum by number, ``(…, 2, K)`` to ``(…)``.

    A repetition in which nothing is defined is left out; one at least must have something.
    """
    sums, counts = totals[..., 0, :], totals[..., 1, :]
    ratios = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return np.asarray(ratios.sum(axis=-1) / (counts > 0).sum(axis=-1))


def _mean_and_draws(sites: list[np.ndarray], seed: int, resamples: int) -> tuple[float, np.ndarray]:
    rng = np.random.default_rng(seed)
    mean = math.fsum(_mean(units) for units in sites) / len(sites)
    draws = np.mean([_draw(units, rng, resamples) for units in sites], axis=0)
    return mean, draws


def _mean(units: np.ndarray) -> float:
    """Return a site's mean, summed exactly."""
    totals = [[math.fsum(column) for column in units[:, part].T] for part in (0, 1)]
    return float(mean_of_repetitions(np.array(totals)))


def _draw(units: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    number, _, repetitions = units.shape
    rows = max(1, _INDICES_AT_ONCE // (number * repetitions))
    means = []
    for start in range(0, resamples, rows):
        chosen = rng.integers(number, size=(min(rows, resamples - start), number))
        means.append(mean_of_repetitions(units[chosen].sum(axis=1)))
    return np.concatenate(means)


def _percentiles(draws: np.ndarray, mean: float, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    # Rounding must not leave the mean outside its own interval.
    return min(float(low), mean), max(float(high), mean)
