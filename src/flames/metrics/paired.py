"""Differences between two methods on the same patients, tested by swapping them patient by patient.

If two methods are alike, it does not matter which of a patient's two results is called whose. So
the difference of the means is held against what it becomes when every patient's results are
swapped or not by the toss of a coin: an exact test for any number of patients, however they are
spread over sites. A bootstrap within sites would take a site of one patient for certain. The
interval holds every constant advantage that the same test does not refuse.

R. A. Fisher, The Design of Experiments, 1935, §21; P. Good, Permutation, Parametric and Bootstrap
Tests of Hypotheses, 3rd ed. 2005, Ch. 3.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from flames.metrics.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Value,
    defined,
    unit_tables,
)

FEWEST = 6
"""Patients that a test needs: with n of them no p-value goes below 2·0.5^n, which is 0.03 for 6."""
_TOSSES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Difference:
    """Mean of ``a`` minus mean of ``b``, each over its defined cases, with interval and p-value."""

    mean: float | None
    low: float | None
    """None with fewer than `FEWEST` patients."""
    high: float | None
    n: int
    """Cases that either defines."""
    p_value: float | None
    """Two-sided; None with fewer than `FEWEST` patients."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def paired_difference(
    a: Mapping[str, Value],
    b: Mapping[str, Value],
    *,
    seed: int,
    groups: Mapping[str, Hashable] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Return the mean of ``a`` minus the mean of ``b`` over the cases of both, tested by patient.

    Each mean is over the cases that its method defines, as a table shows it: where ``a`` finds
    nothing on a case without tumour (undefined) and ``b`` does (0), that is to the credit of ``a``.
    Equal scores give 0 with the interval [0, 0] and p = 1.

    Args:
        a: Score by case id, or its scores by repetition.
        b: Score by case id, or its scores by repetition.
        seed: Decides the tosses.
        groups: The patient by case id; None takes every case for one.
        resamples: Tosses.
        confidence: Coverage, between 0 and 1.

    >>> a, b = {"x": 0.5, "y": 0.75}, {"y": 0.25, "x": 0.25, "z": 1.0}
    >>> paired_difference(a, b, seed=1)  # 1.25/2 - 0.5/2; two patients are too few for a test
    Difference(mean=0.375, low=None, high=None, n=2, p_value=None)
    >>> a, b = {"x": 0.5, "empty": None}, {"x": 0.5, "empty": 0.0}
    >>> paired_difference(a, b, seed=1).mean  # 0.5 - 0.5/2
    0.25
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
    a_by_site: Mapping[str, Mapping[str, Value]],
    b_by_site: Mapping[str, Mapping[str, Value]],
    *,
    seed: int,
    groups_by_site: Mapping[str, Mapping[str, Hashable]] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Return the mean over sites of `paired_difference`, every site counting alike.

    Sites where either defines nothing are left out.

    >>> a = {"s": {"x": 1.0}, "t": {"y": 0.5, "z": 0.75}}
    >>> b = {"s": {"x": 0.5}, "t": {"y": 0.5, "z": 0.25}}
    >>> paired_difference_over_sites(a, b, seed=1).mean  # (0.5 + (0 + 0.5)/2)/2
    0.375
    """
    sites, number = [], 0
    for site in sorted(set(a_by_site) & set(b_by_site)):
        mine, theirs = a_by_site[site], b_by_site[site]
        ids = sorted(set(mine) & set(theirs))
        units = _units(
            [mine[i] for i in ids],
            [theirs[i] for i in ids],
            [groups_by_site[site][i] if groups_by_site else i for i in ids],
        )
        if units[:, 0, 1].any() and units[:, 1, 1].any():
            sites.append(units)
            number += sum(defined(mine[i]) or defined(theirs[i]) for i in ids)
    if not sites:
        return Difference(None, None, None, 0, None)
    kept = [np.ones((1, len(units)), dtype=bool) for units in sites]
    mean = float(_swapped(sites, kept)[0][0])
    if sum(map(len, sites)) < FEWEST:
        return Difference(mean, None, None, number, None)
    if all((units[:, 0] == units[:, 1]).all() for units in sites):
        return Difference(0.0, 0.0, 0.0, number, 1.0)
    rng = np.random.default_rng(seed)
    rows = max(1, _TOSSES_AT_ONCE // sum(map(len, sites)))
    found = [
        _swapped(sites, [rng.random((min(rows, resamples - start), len(u))) < 0.5 for u in sites])
        for start in range(0, resamples, rows)
    ]
    test = _Test(mean, *(np.concatenate(parts) for parts in zip(*found, strict=True)))
    low, high = (test.end(side, 1 - confidence) for side in (-1, 1))
    return Difference(mean, low, high, number, test.p_value(0.0))


@dataclass(frozen=True)
class _Test:
    """A difference, and what it is after each toss: ``moved - advantage * share``."""

    mean: float
    moved: np.ndarray
    share: np.ndarray
    """Cases of ``a`` among those called its own, less those among the others; 1 unswapped."""

    def p_value(self, advantage: float) -> float:
        """Return how often chance alone is as far away, if ``a`` is better by ``advantage``."""
        there = abs(self.mean - advantage)
        drawn = np.abs(self.moved - advantage * self.share)
        return float(1 + (drawn >= there * (1 - 1e-9) - 1e-12).sum()) / (len(drawn) + 1)

    def end(self, side: int, level: float) -> float | None:
        """Return the farthest advantage on a side that is not refused; None if there is no end.

        It is short of the true one by a millionth, but never of zero: whether zero is refused is
        what a reader looks for, and with many equal scores zero is the true end itself.
        """
        near, step = 0.0, 1e-4
        while self.p_value(self.mean + side * step) > level:
            near, step = step, 2 * step
            if step > 1e4:
                return None
        far = step
        while far - near > 1e-6 + 1e-6 * far:
            middle = (near + far) / 2
            if self.p_value(self.mean + side * middle) > level:
                near = middle
            else:
                far = middle
        end = self.mean + side * near
        if self.p_value(0.0) > level:
            return min(end, 0.0) if side < 0 else max(end, 0.0)
        return end


def _units(a: Sequence[Value], b: Sequence[Value], groups: Sequence[Hashable]) -> np.ndarray:
    """Return sums and numbers by patient, method and repetition, ``(U, 2, 2, K)``.

    Where one method was repeated more often, each of its repetitions is paired with each of the
    other's, so that the difference is still that of the two means over repetitions.
    """
    mine, theirs = unit_tables(a, groups), unit_tables(b, groups)
    pairs = [_paired(mine[group], theirs[group]) for group in mine]
    known = [pair for pair in pairs if pair[:, 1].any()]
    # Sorted, so that the tosses do not depend on the order of the cases.
    known.sort(key=lambda pair: pair.tolist())
    return np.array(known) if known else np.empty((0, 2, 2, 1))


def _paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return sums and numbers ``(2, K)`` of both methods side by side, ``(2, 2, K)``."""
    if a.shape != b.shape:
        a, b = np.repeat(a, b.shape[1], axis=1), np.tile(b, a.shape[1])
    return np.stack([a, b])


def _swapped(
    sites: Sequence[np.ndarray], keeps: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the difference becomes by each toss, and the share of ``a`` in it, ``(B,)``.

    Args:
        sites: Units of each.
        keeps: By site, whether each toss leaves each patient's results as they are, ``(B, U)``.
    """
    moved, share = [], []
    for units, keep in zip(sites, keeps, strict=True):
        stay, swap = keep.astype(np.float64), (~keep).astype(np.float64)
        a, b = units[:, 0], units[:, 1]
        mine = np.tensordot(stay, a, 1) + np.tensordot(swap, b, 1)  # (B, 2, K)
        theirs = np.tensordot(stay, b, 1) + np.tensordot(swap, a, 1)
        numbers = mine[:, 1], theirs[:, 1]
        moved.append(_minus(mine[:, 0], theirs[:, 0], numbers))
        of_a = np.tensordot(stay, a[:, 1], 1), np.tensordot(swap, a[:, 1], 1)
        share.append(_minus(*of_a, numbers))
    return np.mean(moved, axis=0), np.mean(share, axis=0)


def _minus(
    mine: np.ndarray, theirs: np.ndarray, numbers: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the mean over repetitions of ``mine / numbers[0] - theirs / numbers[1]``, ``(B,)``.

    A repetition in which either has no case is left out.
    """
    both = (numbers[0] > 0) & (numbers[1] > 0)
    parts = [
        np.divide(part, number, out=np.zeros_like(part), where=both)
        for part, number in zip((mine, theirs), numbers, strict=True)
    ]
    return np.asarray((parts[0] - parts[1]).sum(axis=1) / np.maximum(both.sum(axis=1), 1))
