"""Whom to learn from: clients whose first steps from common weights point the same way.

After the first round every client has moved away from the same start. Two hospitals with the same
task move alike; unrelated ones move at right angles. Compare the clustering of clients by the
cosine of their updates in Sattler et al., Clustered Federated Learning, IEEE TNNLS 32(8), 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flames.strategies.arrays import Arrays
from flames.strategies.base import Updates, ordered

TILE_BYTES = 1 << 28
STRANGER = 0.2
"""Share of the largest cosine below which two clients have nothing to tell each other."""


def affinities(updates: Updates, start: Arrays) -> dict[str, dict[str, float]]:
    """Return how much each client should weigh each peer of its modality, 0 to 1.

    With ``c`` the cosine of two clients' movements from ``start`` and ``m`` the largest between any
    two clients of one modality, it is ``c / m``: symmetric, and 1 for the two most alike. Below
    `STRANGER` it is 0: movements at right angles or against each other, give or take noise.

    >>> from flames.strategies.base import Update
    >>> start = {"w": np.zeros(2)}
    >>> def update(name, modality, *w):
    ...     return Update(name, modality, {"w": np.array(w)}, 1)
    >>> found = affinities(
    ...     {
    ...         "a": update("a", "US", 3.0, 4.0),
    ...         "b": update("b", "US", 4.0, 3.0),
    ...         "c": update("c", "US", -4.0, 3.0),
    ...     },
    ...     start,
    ... )
    >>> found["a"]  # cosines: a with b 24/25, a with c 0, b with c -7/25
    {'b': 1.0, 'c': 0.0}
    """
    clients = ordered(updates)
    cosine = _cosines([u.arrays for u in clients], start)
    pairs = [
        (i, j)
        for i, one in enumerate(clients)
        for j, other in enumerate(clients)
        if i != j and one.modality == other.modality
    ]
    most = max((float(cosine[pair]) for pair in pairs), default=0.0)
    found: dict[str, dict[str, float]] = {client.client: {} for client in clients}
    for i, j in pairs:
        weight = float(cosine[i, j]) / most if most > 0 else 0.0
        found[clients[i].client][clients[j].client] = weight if weight >= STRANGER else 0.0
    return found


def _cosines(models: list[Arrays], start: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the cosines of movements, ``(n, n)`` float64, one array of all models at a time.

    Of many large models only as many as `TILE_BYTES` hold are in memory, against as many others.
    """
    products = np.zeros((len(models), len(models)))
    for name, origin in start.items():
        if np.issubdtype(origin.dtype, np.floating):
            size = max(1, TILE_BYTES // max(1, 8 * origin.size))
            tiles = [range(i, min(i + size, len(models))) for i in range(0, len(models), size)]
            for number, rows in enumerate(tiles):
                moves = _moves(models, rows, name, origin)
                products[np.ix_(rows, rows)] += moves @ moves.T
                for columns in tiles[number + 1 :]:
                    product = moves @ _moves(models, columns, name, origin).T
                    products[np.ix_(rows, columns)] += product
                    products[np.ix_(columns, rows)] += product.T
    lengths = np.sqrt(np.diag(products))
    lengths[lengths == 0] = 1.0
    return products / np.outer(lengths, lengths)


def _moves(models: list[Arrays], chosen: range, name: str, origin: np.ndarray) -> np.ndarray:
    """Return how one array of some models moved, ``(m, size)`` float64."""
    moves = np.empty((len(chosen), origin.size))
    for row, index in zip(moves, chosen, strict=True):
        np.subtract(models[index][name].reshape(-1), origin.reshape(-1), out=row, dtype=np.float64)
    return moves
