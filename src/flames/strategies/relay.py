"""Who trains after whom: friends hand one model on, instead of each starting from a mean.

Compare cyclic weight transfer in Chang et al., Distributed deep learning networks among
institutions for medical imaging, JAMIA 25(8), 2018.
"""

from __future__ import annotations

from flames.strategies.base import Chain, Update, Updates, ordered


def chain_of(client: str, updates: Updates, length: int) -> Chain:
    """Return the chain of a client's circle that it belongs to, in the order of their turns.

    Who is most alike to all others comes first, the first by name of equals: what goes round begins
    in the middle of the circle, and who may be no friend after all comes last.

    Args:
        client: One of ``updates``.
        updates: Of one round and one modality.
        length: Clients of a chain at most. A circle of more is dealt out to as few chains as
            possible, side by side.

    >>> names = ["a", "b", "c", "d", "e"]
    >>> updates = {name: Update(name, "MR", {}, 1) for name in names}
    >>> chain_of("b", updates, 8)
    Chain(clients=('a', 'b', 'c', 'd', 'e'), ring=True)
    >>> chain_of("b", updates, 3)
    Chain(clients=('b', 'd'), ring=False)
    >>> chain_of("b", updates, 1)
    Chain(clients=('b',), ring=False)
    """
    found = next(circle for circle in circles(updates) if client in circle)
    circle = sorted(found, key=lambda name: (-_closeness(found[name]), name))
    parts = -(-len(circle) // length)
    number = circle.index(client) % parts
    return Chain(tuple(circle[number::parts]), ring=parts == 1)


def _closeness(update: Update) -> float:
    return sum((update.affinity or {}).values())


def circles(updates: Updates) -> list[dict[str, Update]]:
    """Return the updates by circles of clients who learn from each other.

    Two clients are of one circle if they weigh each other, or both weigh a third. Where affinities
    are unknown all clients are one.
    """
    clients = ordered(updates)
    if any(client.affinity is None for client in clients):
        return [dict(updates)]
    left = {client.client: client for client in clients}
    found: list[dict[str, Update]] = []
    while left:
        first = next(iter(left))
        circle, ask = {first: left.pop(first)}, [first]
        while ask:
            weights = updates[ask.pop()].affinity or {}
            for name in [n for n in left if weights.get(n, 0.0) > 0]:
                circle[name] = left.pop(name)
                ask.append(name)
        found.append(circle)
    return found
