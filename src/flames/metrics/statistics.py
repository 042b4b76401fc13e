"""Means with intervals, differences between methods, and how well presence is told.

Every interval is a percentile bootstrap over cases, drawn from a seed that the caller passes. Cases
of one patient are not independent: where ``groups`` names patients, patients are drawn, each with
all its cases. Undefined values (None) are left out; ``n`` counts the rest. The order of the cases
never changes a result.

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


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval; all None when nothing was defined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Cases that the mean is over."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields, as ``summary.json`` writes them."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """Mean of ``a − b`` over the cases that both have, with interval and p-value."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Pairs with both values defined."""
    p_value: float | None
    """Two-sided; None with fewer than two pairs."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def bootstrap_interval(
    values: Iterable[float | None],
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean of the defined values with its percentile interval.

    One case, or one group, gives ``low = high = mean``; no defined value gives None with ``n = 0``.

    Args:
        values: One a case; None is undefined.
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
    values_by_site: Mapping[str, Sequence[float | None]],
    *,
    seed: int,
    groups_by_site: Mapping[str, Sequence[Hashable]] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean over sites of the sites' means, drawing cases within each site.

    ``m = (1/S) Σ_s mean(values of s)``: a small site counts as much as a large one. Sites are
    fixed, not drawn: the interval speaks of other patients at these sites, not of other sites.
    Sites without a defined value are left out. One site is `bootstrap_interval`.

    >>> mean_over_sites({"a": [0.0, 0.5], "b": [1.0, 1.0, 1.0]}, seed=1).mean  # (0.25 + 1)/2
    0.625
    """
    sites = _defined_sites(values_by_site, groups_by_site)
    if not sites:
        return Interval(None, None, None, 0)
    mean, draws = _mean_and_draws(sites, seed, resamples)
    low, high = _percentiles(draws, mean, confidence)
    return Interval(mean, low, high, sum(int(counts.sum()) for _, counts in sites))


def paired_difference(
    a: Mapping[str, float | None],
    b: Mapping[str, float | None],
    *,
    seed: int,
    groups: Mapping[str, Hashable] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Return the mean of ``a − b`` over cases paired by id, with interval and p-value.

    Cases that only one side has, or that either leaves undefined, are left out. Equal scores give 0
    with the interval [0, 0] and p = 1.

    Args:
        a: Score by case id.
        b: Score by case id.
        seed: Decides the draw.
        groups: The patient by case id; None draws cases.
        resamples: Bootstrap samples.
        confidence: Coverage, between 0 and 1.

    >>> a, b = {"x": 0.5, "y": 0.75}, {"y": 0.25, "x": 0.25, "z": 1.0}
    >>> difference = paired_difference(a, b, seed=1)
    >>> difference.mean, difference.n  # (0.25 + 0.5)/2
    (0.375, 2)
    """
    return paired_difference_over_sites(
        {"": a},
        {"": b},
        seed=seed,
        groups_by_site=None if groups is None else {"": groups},
        resamples=resamples,
        confidence=confidence,
    )


def paired_difference_over_sites(
    a_by_site: Mapping[str, Mapping[str, float | None]],
    b_by_site: Mapping[str, Mapping[str, float | None]],
    *,
    seed: int,
    groups_by_site: Mapping[str, Mapping[str, Hashable]] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Return the mean over sites of the paired differences ``a − b``, drawing within each site.

    >>> a = {"s": {"x": 1.0}, "t": {"y": 0.5, "z": 0.75}}
    >>> b = {"s": {"x": 0.5}, "t": {"y": 0.5, "z": 0.25}}
    >>> paired_difference_over_sites(a, b, seed=1).mean  # (0.5 + (0 + 0.5)/2)/2
    0.375
    """
    values: dict[str, list[float | None]] = {}
    groups: dict[str, list[Hashable]] = {}
    for site in sorted(set(a_by_site) & set(b_by_site)):
        ids = sorted(set(a_by_site[site]) & set(b_by_site[site]))
        values[site] = [_minus(a_by_site[site][i], b_by_site[site][i]) for i in ids]
        groups[site] = [groups_by_site[site][i] if groups_by_site else i for i in ids]
    sites = _defined_sites(values, groups)
    if not sites:
        return Difference(None, None, None, 0, None)
    mean, draws = _mean_and_draws(sites, seed, resamples)
    low, high = _percentiles(draws, mean, confidence)
    n = sum(int(counts.sum()) for _, counts in sites)
    drawn = any(len(counts) > 1 for _, counts in sites)
    return Difference(mean, low, high, n, bootstrap_p_value(draws) if drawn else None)


def bootstrap_p_value(draws: np.ndarray) -> float:
    """Return the two-sided p-value that the interval of ``draws`` implies, against zero.

    ``p = min(1, 2·(1 + min(#{d ≤ 0}, #{d ≥ 0})) / (B + 1))`` over ``B`` bootstrap means: below 0.05
    where the 95 % interval leaves zero out, up to the ``+1``, which keeps p above zero.

    A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, Ch. 4.

    >>> bootstrap_p_value(np.array([0.1] * 18 + [-0.2]))  # 2·(1 + 1)/20
    0.2
    """
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (1 + tail) / (len(draws) + 1))


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


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _defined_sites(
    values_by_site: Mapping[str, Sequence[float | None]],
    groups_by_site: Mapping[str, Sequence[Hashable]] | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return sum and count of each drawing unit, a pair of arrays for each site with any value."""
    sites = []
    for site in sorted(values_by_site):
        values = values_by_site[site]
        groups = range(len(values)) if groups_by_site is None else groups_by_site[site]
        units: dict[Hashable, list[float]] = {}
        for value, group in zip(values, groups, strict=True):
            if value is not None:
                units.setdefault(group, []).append(float(value))
        if units:
            # Sorted, so that the draw does not depend on the order of the cases.
            pairs = sorted((math.fsum(unit), len(unit)) for unit in units.values())
            sites.append((np.array([s for s, _ in pairs]), np.array([c for _, c in pairs])))
    return sites


def _mean_and_draws(
    sites: list[tuple[np.ndarray, np.ndarray]], seed: int, resamples: int
) -> tuple[float, np.ndarray]:
    rng = np.random.default_rng(seed)
    mean = math.fsum(math.fsum(sums) / int(counts.sum()) for sums, counts in sites) / len(sites)
    draws = np.mean([_draw(sums, counts, rng, resamples) for sums, counts in sites], axis=0)
    return mean, draws


def _draw(
    sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator, resamples: int
) -> np.ndarray:
    units = len(sums)
    rows = max(1, _INDICES_AT_ONCE // units)
    means = []
    for start in range(0, resamples, rows):
        chosen = rng.integers(units, size=(min(rows, resamples - start), units))
        means.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
    return np.concatenate(means)


def _percentiles(draws: np.ndarray, mean: float, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    # Rounding must not leave the mean outside its own interval.
    return min(float(low), mean), max(float(high), mean)
