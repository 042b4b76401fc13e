"""Whose turn it is in a round in which clients hand a model on. See `flames.strategies.relay`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flames.strategies.base import Chain


class Turns:
    """The turns of one open round."""

    def __init__(self, chain: Callable[[str], Chain | None]) -> None:
        """Ask ``chain`` once for each client; None where it begins without a relay."""
        self._chain = chain
        self._chains: dict[str, Chain | None] = {}
        self._before: dict[str, str | None] = {}

    def takes_turns(self, client: str) -> bool:
        """Return whether a client takes turns with others."""
        chain = self._of(client)
        return chain is not None and len(chain.clients) > 1

    def together(self, client: str) -> tuple[str, ...]:
        """Return with whom a client takes turns, itself among them; nobody without a relay."""
        chain = self._of(client)
        return () if chain is None else chain.clients

    def may_begin(self, client: str, answered: Collection[str], expected: Collection[str]) -> bool:
        """Return whether everybody before a client answered, or is not expected to.

        >>> turns = Turns(lambda _: Chain(("a", "b", "c")))
        >>> turns.may_begin("a", (), ("a", "b", "c")), turns.may_begin("c", ("a",), ("b", "c"))
        (True, False)
        >>> turns.may_begin("c", ("a",), ("c",))
        True
        """
        if client in self._before:
            return True
        chain = self._of(client)
        earlier = () if chain is None else chain.clients[: chain.clients.index(client)]
        return all(name in answered or name not in expected for name in earlier)

    def before(self, client: str, answered: Collection[str]) -> str | None:
        """Return from whom a client goes on; once said it stays, whoever answers later.

        It is the nearest before it who answered in this round; else the last but itself of the
        round before.

        >>> turns = Turns(lambda _: Chain(("b", "c", "a"), before=("a", "b", "c")))
        >>> turns.before("b", ()), turns.before("a", ("b",)), turns.before("a", ("b", "c"))
        ('c', 'b', 'b')
        >>> Turns(lambda _: Chain(("a", "b"))).before("a", ()) is None
        True
        """
        if client not in self._before:
            self._before[client] = self._nearest(client, answered)
        return self._before[client]

    def began_from(self, client: str) -> list[str]:
        """Return who was told to go on from a client.

        >>> turns = Turns(lambda _: Chain(("a", "b", "c")))
        >>> turns.before("b", ("a",)), turns.began_from("a"), turns.began_from("b")
        ('a', ['b'], [])
        """
        return sorted(name for name, before in self._before.items() if before == client)

    def _nearest(self, client: str, answered: Collection[str]) -> str | None:
        chain = self._of(client)
        if chain is None or not self.takes_turns(client):
            return None
        place = chain.clients.index(client)
        earlier = [name for name in chain.clients[:place] if name in answered]
        if earlier:
            return earlier[-1]
        return next((name for name in reversed(chain.before) if name != client), None)

    def _of(self, client: str) -> Chain | None:
        if client not in self._chains:
            self._chains[client] = self._chain(client)
        return self._chains[client]
