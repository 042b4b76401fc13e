"""Whom to learn from: clients whose steps point the same way.

Two hospitals with the same task move alike in a round; unrelated ones move at right angles. Compare
the clustering of clients by the cosine of their updates in Sattler et al., Clustered Federated
Learning, IEEE TNNLS 32(8), 2021.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flames.strategies.arrays import Arrays
from flames.strategies.base import Updates, ordered
from flames.strategies.movement import part_of

Pairs = Mapping[str, Mapping[str, float]]
"""A number for each client and each peer of its modality."""
TILE_BYTES = 1 << 28
STRANGER = 0.2
"""Share of the largest cosine below which two clients have nothing to tell each other."""
MISFIT = 0.45
"""Share of own weights' validation Dice below which the peers' mean is of another task."""
FIT = 0.6
"""Share of own weights' validation Dice from which on the model of others is of the same task."""
SOMETHING = 0.2
"""Validation Dice below which a model finds too little to judge, or to be judged by."""


def cosines(updates: Updates, begun: Mapping[str, Arrays]) -> dict[str, dict[str, float]]:
    """Return the cosine of each client's movement with that of each peer of its modality.

    Statistics of batch norm are not weights and do not count.

    Args:
        updates: Of one round.
        begun: The weights that each client began it with, by name; names that it lacks do not
            count.

    >>> from flames.strategies.base import Update
    >>> def update(name, modality, *w):
    ...     return Update(name, modality, {"w": np.array(w)}, 1)
    >>> updates = {
    ...     "a": update("a", "US", 3.0, 4.0),
    ...     "b": update("b", "US", 5.0, 3.0),
    ...     "c": update("c", "MR", -4.0, 3.0),
    ... }
    >>> zero, one = {"w": np.zeros(2)}, {"w": np.array([1.0, 0.0])}
    >>> cosines(updates, {"a": zero, "b": one, "c": zero})  # (3, 4) and (4, 3) of lengths 5
    {'a': {'b': 0.96}, 'b': {'a': 0.96}, 'c': {}}
    """
    found: dict[str, dict[str, float]] = {}
    for modality in sorted({update.modality for update in updates.values()}):
        clients = [u for u in ordered(updates) if u.modality == modality]
        starts = [begun[u.client] for u in clients]
        cosine = _cosines([u.arrays for u in clients], starts)
        for i, one in enumerate(clients):
            found[one.client] = {
                other.client: float(cosine[i, j]) for j, other in enumerate(clients) if i != j
            }
    return {update.client: found[update.client] for update in ordered(updates)}


def affinities(cosines: Pairs, most: float = 0.0) -> dict[str, dict[str, float]]:
    """Return how much each client should weigh each peer of its modality, 0 to 1.

    With ``c`` the cosine of two clients' movements and ``m`` the largest of any two, it is
    ``c / m``: symmetric, and 1 for the two most alike. Below `STRANGER` it is 0: movements at right
    angles or against each other, give or take noise.

    Args:
        cosines: Of clients with the same network.
        most: The largest of others with that network, who are not judged.

    >>> affinities({"a": {"b": 0.96, "c": 0.0}, "b": {"a": 0.96, "c": -0.28}})["a"]
    {'b': 1.0, 'c': 0.0}
    """
    most = max([most, *(cosine for peers in cosines.values() for cosine in peers.values())])
    return {
        client: {
            peer: cosine / most if most > 0 and cosine / most >= STRANGER else 0.0
            for peer, cosine in peers.items()
        }
        for client, peers in cosines.items()
    }


def misfits(scores: Iterable[tuple[str, Mapping[str, float]]]) -> set[str]:
    """Return the clients whose peers have another task, by what all rounds so far measured.

    There the peers' mean alone does, in the mean over the rounds that tried it, less than `MISFIT`
    times as well as own weights at best in those rounds. Movements can be alike by chance; this
    hardly can.

    Args:
        scores: A client and the validation Dice of what it tried in a round, by kind.

    >>> limb = [("limb", {"peers": 0.18, "own": 0.46}), ("limb", {"peers": 0.10, "own": 0.49})]
    >>> brain = [("brain", {"peers": 0.22, "own": 0.39}), ("brain", {"own": 0.30})]
    >>> misfits([*limb, *brain, ("new", {"peers": 0.0, "own": 0.05}), ("alone", {"own": 0.4})])
    {'limb'}
    """
    tasted: dict[str, list[float]] = {}
    own: dict[str, float] = {}
    for client, tried in scores:
        if "peers" in tried:
            tasted.setdefault(client, []).append(tried["peers"])
            own[client] = max(own.get(client, 0.0), tried.get("own", 0.0))
    return {
        client
        for client, peers in tasted.items()
        if own[client] >= SOMETHING and sum(peers) < MISFIT * own[client] * len(peers)
    }


def fitting(scores: Iterable[tuple[str, Mapping[str, float]]]) -> set[str]:
    """Return the clients that the model of others suits after all.

    That model finds something there, and does in the mean over two rounds or more at least `FIT`
    times as well as own weights.

    Args:
        scores: A client and the validation Dice of what it tried in a round in which the group's
            model was of others, by kind.

    >>> limb = [("limb", {"model": 0.17, "own": 0.44}), ("limb", {"model": 0.15, "own": 0.44})]
    >>> brain = [("brain", {"model": 0.23, "own": 0.43}), ("brain", {"model": 0.28, "own": 0.39})]
    >>> fitting([*limb, *brain, ("once", {"model": 0.5, "own": 0.5}), ("new", {"model": 0.4})])
    {'brain'}
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for client, tried in scores:
        if "model" in tried and "own" in tried:
            found.setdefault(client, []).append((tried["model"], tried["own"]))
    return {
        client
        for client, rounds in found.items()
        if len(rounds) > 1
        and sum(model for model, _ in rounds)
        >= max(FIT * sum(own for _, own in rounds), SOMETHING * len(rounds))
    }


def _cosines(models: Sequence[Arrays], starts: Sequence[Arrays]) -> np.ndarray:
    """Return the cosines of movements, ``(n, n)`` float64, one array of all models at a time.

    Of many large models only as many as `TILE_BYTES` hold are in memory, against as many others.
    """
    products = np.zeros((len(models), len(models)))
    for name, origin in starts[0].items():
        if part_of(name) == "weights" and np.issubdtype(origin.dtype, np.floating):
            size = max(1, TILE_BYTES // max(1, 8 * origin.size))
            tiles = [range(i, min(i + size, len(models))) for i in range(0, len(models), size)]
            for number, rows in enumerate(tiles):
                moves = _moves(models, starts, rows, name)
                products[np.ix_(rows, rows)] += moves @ moves.T
                for columns in tiles[number + 1 :]:
                    product = moves @ _moves(models, starts, columns, name).T
                    products[np.ix_(rows, columns)] += product
                    products[np.ix_(columns, rows)] += product.T
    lengths = np.sqrt(np.diag(products))
    lengths[lengths == 0] = 1.0
    return products / np.outer(lengths, lengths)


def _moves(
    models: Sequence[Arrays], starts: Sequence[Arrays], chosen: range, name: str
) -> np.ndarray:
    """Return how one array of some models moved, ``(m, size)`` float64."""
    moves = np.empty((len(chosen), starts[0][name].size))
    for row, index in zip(moves, chosen, strict=True):
        origin = starts[index][name].reshape(-1)
        np.subtract(models[index][name].reshape(-1), origin, out=row, dtype=np.float64)
    return moves
