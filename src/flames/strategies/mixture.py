"""What a client may begin a round with, and how it forms its own mixture.

Savoia, Prezioso, Piccialli: FLAMES, Expert Systems 42(8), 2025, 10.1111/exsy.70090.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flames.strategies.arrays import Arrays, interpolate
from flames.strategies.base import Download
from flames.strategies.rules import last_levels

CHANCE = 0.1
"""Standard deviation of a case's difference in Dice between two models of one run; 0.05 to 0.15."""

EARLIER = "earlier"
"""What a client ended an earlier run with."""


@dataclass(frozen=True)
class Candidate:
    """One set of weights a client could use, and how well it does on validation cases."""

    name: str
    """``own``, ``model`` (the group's), ``best`` (the group's that the server keeps so far),
    ``mixture``, ``peers`` (what they sent, alone), or ``earlier``: see `EARLIER`."""
    arrays: Arrays
    alpha: float | None
    """Own share where it is a mixture."""
    score: float = math.nan
    """Mean validation Dice; NaN before it is measured."""
    curve: list[list[float]] | None = None
    """What each presence threshold makes of that; None before it is measured."""


def candidates(download: Download, own: Arrays | None, *, count: int) -> list[Candidate]:
    """Return every way to begin that a download allows, unscored.

    - ``keep``: own weights, or the group's models where they were sent.
    - ``replace``, or nothing of one's own yet: what was sent.
    - ``mix`` with a fixed α: that mixture, which the client begins with; then the group's models,
      whose score tells the server which round to keep.
    - ``mix`` with α to tune: the group's models, the mixture at the own share by cases, mixtures at
      ``count`` values of α evenly over [1/n, 1), and own weights.

    Raises:
        ValueError: The download needs weights that are not there.
    """
    sent = (("model", download.model), ("best", download.best))
    group = [Candidate(name, arrays, None) for name, arrays in sent if arrays is not None]
    if download.use == "keep" and own is not None:
        return [*group, Candidate("own", own, None)]
    if download.arrays is None:
        raise ValueError("the server sent no weights to a client that has none")
    if download.use == "replace" or own is None:
        return [Candidate("model", download.arrays, None)]
    peers = download.arrays
    if download.alpha is not None:
        shares = [download.alpha]
    else:
        shares = [download.own_share, *alphas(download.peers + 1, count)]
    mixtures = [
        Candidate("mixture", mixed(own, peers, alpha, own_head=download.own_head), alpha)
        for alpha in dict.fromkeys(shares)
    ]
    if download.alpha is not None:
        return [*mixtures, *group]
    return [*group, *mixtures, Candidate("own", own, None)]


def choose(tried: Sequence[Candidate], *, sharing: bool) -> Candidate:
    """Return what a round begins with: the best on validation, the first of equals.

    While ``sharing`` it is the first mixture, the mean of the client and the peers it should weigh,
    or own weights where there are no such peers.
    Own weights, just trained on the site's own cases, almost always beat an average of models that
    have not yet met, and models that went their own way from the start have averages that are worth
    little: a client that took the best from the first round on would learn from nobody.
    """
    if sharing:
        for name in ("mixture", "own"):
            for candidate in tried:
                if candidate.name == name:
                    return candidate
    return max(tried, key=lambda candidate: candidate.score)


def eligible(
    tried: Sequence[Candidate], cases: int, *, alone: bool = False, closing: bool = True
) -> list[Candidate]:
    """Return the candidates but older ones, and for a client ``alone`` but the group's models.

    They count only where they lead all others by more than chance, see `leads`, and for a client
    alone in the closing pass only. ``best`` and ``earlier`` are older than the others. To a client
    whom no peer is like the group's model is of another task; tried in every round, one of many
    would score by chance on a few hard cases.

    >>> tried = [Candidate(n, {}, None, s) for n, s in (("best", 0.6), ("own", 0.54))]
    >>> [[way.name for way in eligible(tried, cases)] for cases in (1, 4)]  # leads of 0.1 and 0.05
    [['own'], ['best', 'own']]
    >>> tried = [Candidate(n, {}, None, s) for n, s in (("model", 0.2), ("own", 0.0))]
    >>> [
    ...     [way.name for way in eligible(tried, 1, alone=True, closing=closing)]
    ...     for closing in (False, True)
    ... ]
    [['own'], ['model', 'own']]
    """
    alone = alone and any(way.name == "own" for way in tried)
    foreign = {"best", EARLIER, "model"} if alone else {"best", EARLIER}
    own = [way for way in tried if way.name not in foreign]
    if alone and not closing:
        return own
    most = max((way.score for way in own if math.isfinite(way.score)), default=-math.inf)
    return [w for w in tried if w.name not in foreign or leads(w.score, most, cases)]


def leads(old: float, new: float, cases: float) -> bool:
    """Return whether an older model leads a newer one by more than chance: ``old - new ≥ c / √n``.

    The best of many rounds is always a lucky one, the more so the fewer cases judge it; the newest
    has learnt most. ``c`` is `CHANCE`, n the validation cases.

    >>> [leads(0.54, 0.5, cases) for cases in (1, 4, 9)]  # by 0.04: 0.1, 0.05, 0.033
    [False, False, True]
    """
    return old >= new + CHANCE / math.sqrt(max(1, cases))


def alphas(clients: int, count: int) -> list[float]:
    """Return ``count`` own shares evenly over [1/n, 1), 1/n first; 1 is own weights alone.

    >>> alphas(2, 2)
    [0.5, 0.75]
    """
    low = 1 / clients
    return [low + (1 - low) * step / count for step in range(count)]


def mixed(own: Arrays, peers: Arrays, alpha: float, *, own_head: bool) -> dict[str, np.ndarray]:
    """Return ``α·own + (1 − α)·peers``, with its own last levels where there is an own share.

    >>> own = {"down.weight": np.array([1.0]), "head.weight": np.array([1.0])}
    >>> peers = {"down.weight": np.array([3.0]), "head.weight": np.array([3.0])}
    >>> found = mixed(own, peers, 0.5, own_head=True)
    >>> float(found["down.weight"][0]), float(found["head.weight"][0])
    (2.0, 1.0)
    >>> float(mixed(own, peers, 0.0, own_head=True)["head.weight"][0])  # handed on whole
    3.0
    """
    arrays = interpolate(own, peers, alpha)
    if own_head and alpha > 0:
        arrays |= {name: np.array(own[name]) for name in last_levels(own)}
    return arrays


def keep_statistics(arrays: Arrays, own: Arrays) -> dict[str, np.ndarray]:
    """Return ``arrays`` with the client's own batch-norm statistics. Li et al., FedBN, ICLR 2021.

    Networks without batch norm come back unchanged.
    """
    return {
        name: own[name] if name.endswith(STATISTICS) else array for name, array in arrays.items()
    }


def other_statistics(one: Arrays, other: Arrays) -> bool:
    """Return whether the batch-norm statistics of two models of one network differ."""
    names = [name for name in one if name.endswith(STATISTICS)]
    return any(not np.array_equal(one[name], other[name]) for name in names)


def best_by_name(tried: Sequence[Candidate]) -> dict[str, float]:
    """Return the best score of each kind that was tried and measured."""
    scores: dict[str, float] = {}
    for candidate in tried:
        if math.isfinite(candidate.score):
            known = scores.get(candidate.name, -math.inf)
            scores[candidate.name] = round(max(known, candidate.score), 6)
    return scores


STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
