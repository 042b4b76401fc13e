"""The consortium's side: it asks clients, keeps one model a modality, and sees no image.

Nothing here knows where clients run. A round is: a `Task` for every client, a `Reply` and weights
from each, then `close_round`. After each round everything that the next one needs is on disk.

A client that is away keeps its place: its last update is carried from round to round, apart from
those of the round. It counts for its own next mixture, and for its group only while the whole group
is away. One that joins late begins with its group's model, or with what of a model all are sent.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from flames.array_files import LazyArrays, save_arrays
from flames.config import RunConfig
from flames.federation.beginning import FirstWeights
from flames.federation.budget import Budget, Member
from flames.federation.exchange import (
    ARRIVING,
    Reply,
    Task,
    begun_with,
    check_update,
    transform,
    whole,
)
from flames.federation.guests import APART
from flames.federation.history import PAST, believed, lengths, read_past, with_round
from flames.federation.judging import Movements, Scores
from flames.federation.keeping import Keeping, by_group
from flames.federation.likeness import Likeness
from flames.federation.parcels import SECTIONS, Parcels, Sections, refuse_moments
from flames.federation.records import site_record
from flames.federation.round_before import MEMORY, RoundBefore
from flames.federation.round_folders import RoundFolders
from flames.federation.round_updates import carry_away, open_updates
from flames.federation.turns import Turns
from flames.files import save_json, writing
from flames.metrics.presence import PresenceRule
from flames.strategies import Download, Strategy
from flames.strategies.base import Chain
from flames.strategies.relay import SETTLED
from flames.wire.coding import Coded

Arrays = Mapping[str, np.ndarray]


class Server:
    """The rounds of one federation, from its start or from where a killed one stopped."""

    def __init__(
        self,
        members: list[Member],
        *,
        config: RunConfig,
        strategy: Strategy,
        start: FirstWeights,
        folder: Path,
    ) -> None:
        """Continue from the last complete round in ``folder``; ``start`` has the first weights."""
        self.members = {member.name: member for member in members}
        self.config = config
        self.strategy = strategy
        self.start = start
        self.budget = Budget(self.members, config, strategy.schedule)
        self.folders = RoundFolders(folder)
        self._received: dict[str, Reply] = {}
        self._bytes: dict[str, tuple[int, int]] = {}
        self._sends: dict[str, int] = {}
        self.before = RoundBefore(self.folders, strategy)
        self.turns = Turns(self._chain)
        self._moved: dict[str, dict[str, Any]] = {}
        self.parcels = Parcels(config.wire)

    def _shared(self, modality: str) -> Arrays:
        """Return the first weights of what travels."""
        start = self.start(modality)
        private = self.strategy.private(start)
        return {name: array for name, array in start.items() if name not in private}

    @property
    def finished(self) -> int:
        """Return the number of the last finished round, 0 before the first."""
        return self.folders.finished

    @property
    def last_round(self) -> int:
        """Return the number of the closing round, in which clients only receive and choose."""
        return self.budget.last_round

    def task(self, client: str) -> Task:
        """Return what ``client`` is asked in the round after the last finished one."""
        server_round = self.finished + 1
        download = self._download(client)
        self._sends[client] = sum(getattr(download, name) is not None for name in SECTIONS)
        steps, total = self.budget.steps(client, server_round), self.budget.total(client)
        return Task(server_round, steps, total, download)

    def dispatch(self, client: str, holds: Mapping[str, str]) -> tuple[Task, Sections]:
        """Return what ``client`` is asked, as it will read it, and its arrays as they travel.

        Args:
            client: Who is asked.
            holds: Digests of the updates it still has, by round; differences count from one of
                them, or everything travels whole. Without any it lost all that it had, and is sent
                weights that need nothing of its own.
        """
        task, held = self.task(client), self.folders.held(client)
        if held is not None and not holds:
            start = self.start(self.members[client].modality)
            task = replace(task, download=whole(task.download, held.arrays, start))
            self._sends[client] = 1
        return self.parcels.dispatch(task, self.folders.sent(client), held, holds)

    @property
    def answered(self) -> frozenset[str]:
        """Return the clients whose update of the open round is here."""
        return frozenset(self._received)

    def accept(
        self,
        reply: Reply,
        arrays: Arrays,
        travelled: tuple[int, int] | None = None,
        moments: Arrays | None = None,
    ) -> None:
        """Check and store one client's update.

        Args:
            reply: What came beside the weights.
            arrays: The weights.
            travelled: Bytes down and up, where they really travelled.
            moments: Its optimiser's, where they were asked for.

        Raises:
            FlamesError: Its arrays are not of this run, or not finite.
            UpdateSetAside: It moved too far for the group's history.
        """
        server_round = self.finished + 1
        steps = len(self.budget.steps(reply.client, server_round))
        like = self._shared(reply.modality)
        corrects = self.strategy.rule.corrects and steps > 0
        check_update(arrays, like, reply.client, corrects=corrects)
        sent = self.folders.sent(reply.client)
        longest = self.config.training.max_grad_norm
        refuse_moments(reply.client, moments or {}, sent, like, longest)
        begun = self.parcels.begun(reply, sent, self.folders.held(reply.client))
        moved = lengths(arrays, begun, steps)
        group = self._group(reply)
        past = read_past(self.folders.last)
        limit = self.config.wire.norm_limit
        believed(reply.client, moved, past, group=group, limit=limit)
        arrays = transform(ARRIVING, arrays, begun, self.config.wire)
        place = self.folders.update(reply.client)
        size = save_arrays(place, arrays, self.parcels.mark(arrays, server_round))
        if moments:
            save_arrays(self.folders.moments(reply.client), moments)
        self._bytes[reply.client] = travelled or (size * self._sends[reply.client], size)
        self._moved[reply.client] = {"client": reply.client, "group": group, "moved": moved}
        self._received[reply.client] = reply

    def receive(
        self, reply: Reply, coded: Coded, digest: str, travelled: tuple[int, int] | None = None
    ) -> None:
        """Read, check and store one client's update as it travelled.

        Args:
            reply: What came beside the weights.
            coded: The weights, whole or as differences.
            digest: Of what the differences count from, as the client says.
            travelled: Bytes down and up.

        Raises:
            FlamesError: It cannot be read, or as for `accept`.
        """
        place, held = self.folders.sent(reply.client), self.folders.held(reply.client)
        arrays = self.parcels.read(reply, coded, digest, place, held)
        self.accept(reply, arrays, travelled, coded.moments)

    def withdraw(self, clients: Iterable[str]) -> None:
        """Take updates out of the open round again."""
        for name in clients:
            del self._received[name], self._bytes[name], self._moved[name]
            self.folders.update(name).unlink(missing_ok=True)
            self.folders.moments(name).unlink(missing_ok=True)

    def close_round(self) -> list[dict[str, Any]]:
        """Finish the round on disk; return its records for ``rounds.jsonl``.

        Raises:
            NotWritten: The disk is full; it can be tried again.
        """
        server_round = self.finished + 1
        partial = self.folders.open
        previous = self.folders.last
        with writing(partial):
            records = [self._site_record(name, server_round) for name in sorted(self._received)]
            records += self._keep_best(server_round)
            replies = {n: asdict(r) for n, r in sorted(self._received.items())}
            save_json(partial / "replies.json", replies)
            self._judge(previous, partial)
            self._remember(partial)
            carry_away(self.folders, self._received)
            moved = [self._moved[name] for name in sorted(self._moved)]
            save_json(partial / PAST, with_round(read_past(previous), server_round, moved))
            save_json(partial / "records.json", self.folders.records() + records)
            shutil.rmtree(partial / "sent", ignore_errors=True)
            self.folders.close()
        self._received, self._bytes, self._moved = {}, {}, {}
        self.turns = Turns(self._chain)
        return records

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all finished rounds."""
        return self.folders.records()

    def replies(self) -> dict[str, Reply]:
        """Return the replies of the last finished round, by client."""
        return self.folders.answers()

    def away(self) -> dict[str, Reply]:
        """Return the last replies of clients that did not answer in the last finished round."""
        return self.folders.away()

    def affinity(self) -> dict[str, dict[str, float]]:
        """Return how much each client weighs each peer, 0 to 1; by name, whoever came first."""
        found = self.before.likeness().affinity
        return {client: dict(sorted(peers.items())) for client, peers in sorted(found.items())}

    def best_models(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the server's models by group, each from the round that validation preferred."""
        return self.folders.best_models()

    def presence_rules(self) -> dict[str, PresenceRule]:
        """Return the presence rule of each of `best_models`, chosen on validation cases."""
        return self.folders.presence_rules()

    def _download(self, client: str) -> Download:
        if self.finished == 0:
            return Download(self.start(self.members[client].modality), use="replace")
        updates = self.before.updates()
        away = self.away()
        modality = self.members[client].modality
        group = self.strategy.group_of(modality)
        if client in updates or client in away:
            if client in updates:
                download = self.before.informed().download(client, updates)
            else:
                download = self.before.returning(away[client], updates)
            if self.finished + 1 < self.last_round and not self.budget.has_short_rounds(client):
                download = replace(download, own_head=False)
            guest = self._hosts() and client in self.before.likeness().guests
            if guest and download.model is not None:
                return Download(download.model, use="replace")
            if download.use != "replace" and not self._is_looked_at(self.finished + 1):
                download = replace(download, model=None)
            if self.finished + 1 == self.last_round and download.model is not None:
                download = replace(download, best=self.folders.best_model(str(group)))
            before = self.turns.before(client, self._received)
            download = replace(download, wants_moments=self._wants_moments(client))
            if before is None or download.use != "mix":
                return download
            fresh = before in self._received
            handed = self.folders.open_update(before) if fresh else updates[before].arrays
            known = self.folders.moments(before, opened=fresh)
            moments = LazyArrays(known) if known.exists() else None
            return replace(download, arrays=handed, own_share=0.0, moments=moments)
        return Download(
            {**self.start(modality), **self.before.common(modality, updates)}, use="replace"
        )

    def _wants_moments(self, client: str) -> bool:
        """Return whether somebody may go on from a client's weights of the open round."""
        if self.finished + 1 >= self.config.rounds or not self.turns.takes_turns(client):
            return False
        return all(map(self.budget.hands_moments_on, self.turns.together(client)))

    def _is_looked_at(self, server_round: int) -> bool:
        """Return whether clients with weights of their own look at their group's model in a round:
        they judge it, or may begin with it because they no longer share."""
        shares = self.strategy.shares_first and server_round <= self.budget.shared_rounds
        return self.budget.judges(server_round) or not shares

    def _chain(self, client: str) -> Chain | None:
        """Return with whom a client trains in turn in the open round."""
        if self.strategy.chain is None or not SETTLED <= self.finished < self.budget.shared_rounds:
            return None
        updates = self.before.updates()
        if client not in updates:
            return None
        chain = self.strategy.chain(client, updates, self.finished - SETTLED)
        return chain if all(map(self.budget.has_short_rounds, chain.clients)) else None

    def _hosts(self) -> bool:
        """Return whether guests begin the open round with a circle's model: they share another."""
        return self.finished + 2 <= self.budget.shared_rounds

    def _judge(self, previous: Path, partial: Path) -> None:
        """Write down whom each client should learn from, as this round and those before show."""
        known = Likeness.read(previous)
        telling = self.budget.tells_who_is_alike(self.finished + 1)
        again = self.strategy.shares_first and telling and not known.complete
        if self.finished == 0 or (again and self.finished + 1 < self.last_round):
            movements = Movements(
                networks={n: id(self.start(r.modality)) for n, r in self._received.items()},
                handed={r.modality for n, r in self._received.items() if self.turns.takes_turns(n)},
                begun=lambda name: self._begun(self._received[name], partial),
            )
            known = movements.seen_by(known, open_updates(self.folders, self._received))
            shutil.rmtree(partial / "begun", ignore_errors=True)
        scores = Scores(self.folders.records(), self._received)
        known = known.without(scores.strangers() - set(known.back))
        known = known.welcoming(self._received if self._hosts() else ())
        known.inviting(self._guests(known, scores)).save(partial)

    def _guests(self, known: Likeness, scores: Scores) -> dict[str, list[str]]:
        """Return who begins the next round with the model of a circle, and who is of that.

        A guest takes part from the round after on, so both must be rounds in which clients share.
        """
        tunes = self.strategy.shares_first and self.config.strategy.alpha == "tuned"
        if not tunes or not APART <= self.finished + 1 <= self.budget.shared_rounds - 2:
            return {}
        found: dict[str, list[str]] = {}
        for group, members in by_group(self.strategy, self._received).items():
            circle = self.strategy.circle(group, self.before.updates()) or []
            found |= scores.of(members).guests(known, group, circle)
        return found

    def _begun(self, reply: Reply, partial: Path) -> Arrays | None:
        """Return what a client began the open round with, from a file; None where nobody knows."""
        if self.finished == 0:
            return self._shared(reply.modality)
        held = self.folders.held(reply.client)
        begun = self.parcels.begun(reply, self.folders.sent(reply.client), held)
        if begun is None:
            own = None if held is None else held.arrays
            begun = begun_with(self._download(reply.client), own, reply.chosen, reply.alpha)
        if begun is None:
            return None
        place = partial / "begun" / f"{reply.client}.safetensors"
        save_arrays(place, begun)
        return LazyArrays(place)

    def _keep_best(self, server_round: int) -> list[dict[str, Any]]:
        """Keep the better ones of the models that clients received this round."""
        updates = self.before.updates() if self.finished else {}
        return Keeping(self.strategy, self.folders, self.last_round).keep(
            self._received,
            updates,
            lambda: self.before.informed().models(updates),
            judged=self.budget.judges(server_round),
        )

    def _remember(self, partial: Path) -> None:
        if self.strategy.advance is None:
            return
        memory = self.before.memory()
        updates = open_updates(self.folders, self._received)
        # Strategies with a memory have one network for all modalities.
        start = self.start(next(iter(updates.values())).modality) if updates else {}
        after = memory | self.strategy.advance(memory, updates, start)
        save_arrays(partial / MEMORY, after)

    def _site_record(self, name: str, server_round: int) -> dict[str, Any]:
        steps = self.budget.steps(name, server_round)
        return site_record(self._received[name], server_round, steps, self._bytes[name])

    def _group(self, reply: Reply) -> str:
        return str(self.strategy.group_of(reply.modality) or reply.modality)
