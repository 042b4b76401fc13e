"""A hospital's side: it trains on its own store and returns weights, counts and scores.

Nothing here knows where it runs. A client gets a `Task`, answers with a `Reply`, and keeps what it
needs for the next round in a folder of its own, one subfolder a round, renamed into place when the
round is complete: a client killed at any moment does its round again from where it began, and one
asked twice for the same round answers with what it did.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flames.config import RunConfig
from flames.data.store import SiteStore
from flames.federation.budget import is_judged, shared_rounds
from flames.federation.client_rounds import MOMENTS, ClientRounds
from flames.federation.exchange import Reply, Task, begun_with, derive_seed
from flames.federation.leaving import RESIDUAL, wrap
from flames.federation.site_cases import SiteCases
from flames.federation.whole_rounds import finish_round
from flames.files import save_json
from flames.models import make_model
from flames.models.precision import Precision
from flames.models.student import tell
from flames.models.weights import (
    load_arrays,
    load_weights,
    model_arrays,
    moment_arrays,
    optimizer_arrays,
    save_arrays,
    set_model_arrays,
    set_moment_arrays,
    set_optimizer_arrays,
)
from flames.strategies import Download, Strategy
from flames.strategies.mixture import (
    EARLIER,
    Candidate,
    best_by_name,
    candidates,
    choose,
    eligible,
    keep_statistics,
    leads,
    other_statistics,
)
from flames.strategies.rules import split_controls
from flames.training.local import ControlVariates, Stretch, joined, train_shared
from flames.training.loop import Progress, TrainResult, learning_rate, make_optimizer
from flames.training.second import keep_second, second_arrays, train_second

Arrays = Mapping[str, np.ndarray]
TASTING = range(2, 4)
"""Rounds in which the mean of the peers is tried alone as well: before models are handed on."""


@dataclass(frozen=True)
class Work:
    """What a round's training needs beside the task."""

    received: Arrays
    """The weights that the round begins with."""
    controls: Arrays
    """The server's control variates; empty where there are none."""
    before: Path
    place: Path


class Client:
    """One client over one store, or over several of one modality when sites are pooled."""

    def __init__(
        self,
        name: str,
        stores: Sequence[SiteStore],
        *,
        config: RunConfig,
        strategy: Strategy,
        precision: Precision,
        folder: Path,
        earlier: Path | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            name: The client's.
            stores: Of its sites.
            config: The run.
            strategy: Of that run.
            precision: Of its training.
            folder: The client's own, on its own disk.
            earlier: File of the model that it ended an earlier run with, to end with again where
                nothing of this run is as good.
        """
        self.name = name
        self.cases = SiteCases(stores, config)
        self.stores = self.cases.stores
        self.modality = self.cases.modality
        self.config = config
        self.strategy = strategy
        self.precision = precision
        self.rounds = ClientRounds(folder, strategy.private)
        self.earlier = earlier if strategy.personal and strategy.selects else None

    @property
    def num_examples(self) -> int:
        """Return the number of training cases."""
        return self.cases.training

    def answer(self, task: Task, progress: Progress | None = None) -> tuple[Reply, Arrays]:
        """Return reply and weights of one round, done now or found on disk from before.

        Raises:
            FlamesError: The site has nothing to train on, the loss is not finite, or the disk is
                full; the client's folder then still holds its last complete round.
        """
        place = self.rounds.of(task.server_round)
        digest = task.digest()
        if place.exists():
            known = self.rounds.reply(place)
            if known.pop("task") == digest:
                return Reply(**known), self.rounds.sent(place)
            self.rounds.take_back(task.server_round)
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        before = self.rounds.before(task.server_round)
        self.rounds.forget(before, task.held)
        reply = self._train(task, partial, progress)
        if not self.config.wire.plain:
            previous = self.rounds.of(before)
            wrap(
                self.rounds.sent(partial),
                partial,
                server_round=task.server_round,
                reply=reply,
                begun=begun_with(
                    task.download, self.rounds.held(task.held), reply.chosen, reply.alpha
                ),
                waiting=previous / RESIDUAL,
                own_head=task.download.own_head,
                wire=self.config.wire,
            )
        save_json(partial / "reply.json", {"task": digest} | asdict(reply))
        finish_round(partial, place)
        return reply, self.rounds.sent(place)

    def _unpack(self, download: Download, before: Path) -> tuple[Download, Arrays]:
        """Return what was received with the client's private arrays put in, and the controls."""
        if download.arrays is None:
            return download, {}
        arrays, controls = split_controls(download.arrays)
        private: dict[str, np.ndarray] = {}
        if before.exists():
            own = load_arrays(before / "weights.safetensors")
            private = {name: own[name] for name in self.strategy.private(own)}
        model, best = (
            None if sent is None else {**sent, **private}
            for sent in (download.model, download.best)
        )
        return replace(download, arrays={**arrays, **private}, model=model, best=best), controls

    def _train(self, task: Task, place: Path, progress: Progress | None) -> Reply:
        started = time.perf_counter()
        before = self.rounds.of(self.rounds.before(task.server_round))
        network = self.precision.place(make_model(self._start_model(), self.cases.plan))
        tell(network, self.modality)
        sharing = self._shares(task.server_round)
        judged = self._judges(task, before, sharing=sharing)
        if self.earlier is not None and not before.exists():
            load_weights(network, self.earlier)  # what is damaged shows now, not at the end
        download, controls = self._unpack(task.download, before)
        tried = self._try(network, download, before, task=task, sharing=sharing, judged=judged)
        fixed = task.download.alpha is not None
        alone = task.download.use == "keep"
        closing = not task.steps
        ways = eligible(tried, self.cases.validation, alone=alone, closing=closing)
        chosen = ways[0] if fixed else choose(ways, sharing=sharing)
        set_model_arrays(network, chosen.arrays)
        validated = time.perf_counter() - started
        result, weights, second = None, dict(chosen.arrays), None
        if task.steps:
            work = Work(chosen.arrays, controls, before, place)
            result, weights, second = self._optimise(network, task, work, progress)
        save_arrays(place / "weights.safetensors", weights)
        again = time.perf_counter()
        set_model_arrays(network, weights)
        trained = replace(chosen, name="own", arrays=weights, alpha=None)
        if result:
            trained = self._scored(network, trained) if judged else replace(trained, score=math.nan)
        ways.append(trained)
        if self.strategy.rule.second:
            if second is None and not before.exists():
                second = weights  # its first round is the closing one
            ways = [self._scored_second(network, second, before, judged=judged)]
            keep_second(before, place, trained=second is not None)
        earlier = self._earlier(network) if closing else []
        ways = eligible([*ways, *earlier], self.cases.validation) if earlier else ways
        validated += time.perf_counter() - again
        best, best_round, curve = self._keep(ways, place, before, task, judged=judged)
        measured = [replace(trained, name="trained")]
        if judged:
            measured = [*self._as_kept(network, tried, download), *measured]
        measured += [way for way in ways if way.name == "second"] + earlier
        return Reply(
            client=self.name,
            modality=self.modality,
            num_examples=self.num_examples,
            validation=best_by_name(measured),
            alpha=chosen.alpha,
            chosen=chosen.name,
            best=best,
            best_round=best_round,
            loss=result.loss if result else None,
            learning_rate=learning_rate(
                max(0, task.steps.stop - 1), task.total_steps, self.config.training
            ),
            seconds={
                "train": result.seconds if result else 0.0,
                "validate": validated,
                "data": result.data_seconds if result else 0.0,
            },
            validation_cases=self.cases.validation,
            curves={way.name: way.curve for way in measured if way.curve} | {"kept": curve},
        )

    def _optimise(
        self, network: nn.Module, task: Task, work: Work, progress: Progress | None
    ) -> tuple[TrainResult, dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        """Train for the task's steps, the optimiser going on from the round before.

        Return also the weights, and those of the second model where the strategy has one.
        """
        training, rule = self.config.training, self.strategy.rule
        before, place = work.before, work.place
        optimizer = make_optimizer(network, training)
        if task.download.moments is not None:
            longest = training.max_grad_norm
            set_moment_arrays(network, optimizer, task.download.moments, longest=longest)
        elif self.strategy.keeps_optimizer and (before / "optimizer.safetensors").exists():
            set_optimizer_arrays(optimizer, load_arrays(before / "optimizer.safetensors"))
        seed = derive_seed(self.config.seed, self.name, task.server_round)
        torch.manual_seed(seed)
        batches = self.cases.batches(seed)
        whole = Stretch(task.steps, task.total_steps, training, self.precision, progress)
        stretch, rest = whole.halves() if rule.second else (whole, None)
        correct = None
        if rule.corrects:
            known = before / "controls.safetensors"
            own = load_arrays(known) if known.exists() else {}
            correct = ControlVariates(network, own, work.controls)
        result = train_shared(
            network,
            optimizer,
            batches,
            stretch,
            rule=rule,
            received=work.received,
            correct=correct,
        )
        save_arrays(place / "optimizer.safetensors", optimizer_arrays(optimizer))
        if task.download.wants_moments:
            save_arrays(place / MOMENTS, moment_arrays(network, optimizer))
        if correct is not None:
            save_arrays(place / "controls.safetensors", correct.arrays())
        weights = model_arrays(network)
        if rest is None:
            return result, weights, None
        more, second = train_second(
            network,
            batches,
            rest,
            rule=rule,
            received=work.received,
            shared=weights,
            before=before,
            place=place,
        )
        return joined(result, more, whole), weights, second

    def _scored_second(
        self, network: nn.Module, second: Arrays | None, before: Path, *, judged: bool
    ) -> Candidate:
        """Return the second model with its score; without training since, that of before."""
        if second is None:
            known, second = self.rounds.reply(before), second_arrays(before)
            if "second" in known["validation"]:
                score, curve = known["validation"]["second"], known["curves"].get("second")
                return Candidate("second", second, None, score, curve)
        found = Candidate("second", second, None)
        if not judged:
            return found
        set_model_arrays(network, second)
        return self._scored(network, found)

    def _earlier(self, network: nn.Module) -> list[Candidate]:
        """Return what the client ended an earlier run with, scored, if there is such a model."""
        if self.earlier is None:
            return []
        load_weights(network, self.earlier)
        return [self._scored(network, Candidate(EARLIER, load_arrays(self.earlier), None))]

    def _judges(self, task: Task, before: Path, *, sharing: bool) -> bool:
        """Return whether a round needs scores: it is to be judged, or else could not begin."""
        if is_judged(self.config, task.server_round) or not task.steps or not before.exists():
            return True
        ended = self._shares(self.rounds.before(task.server_round)) and not sharing
        tunes = task.download.use == "mix" and task.download.alpha is None and not sharing
        return ended or tunes

    def _shares(self, server_round: int) -> bool:
        """Return whether a round belongs to those that begin from the group's model."""
        return self.strategy.shares_first and server_round <= shared_rounds(self.config)

    def _try(
        self,
        network: nn.Module,
        download: Download,
        before: Path,
        *,
        task: Task,
        sharing: bool,
        judged: bool,
    ) -> list[Candidate]:
        """Return what the client could begin with, scored on validation cases if it is ``judged``.

        While it shares it needs no mixture but the first; the mean of two or more peers is also
        tried alone in the first rounds, to see whether they have the same task.

        A single way to begin is scored too, so that the server can choose its best round, except
        in recipes that select nothing, and the mixture that a round of sharing begins with whatever
        its score. What is not scored has NaN.
        """
        own: Arrays | None = None
        known: dict[str, Any] = {"validation": {}, "curves": {}}
        if before.exists():
            own = load_arrays(before / "weights.safetensors")
            known = self.rounds.reply(before)
        found = []
        ways = candidates(download, own, count=self.config.strategy.alpha_candidates)
        unread = ""
        if not self.strategy.selects:
            ways = ways[:1]
        elif sharing and download.alpha is None:
            unread = "mixture"
            mixtures = [way for way in ways if way.name == "mixture"]
            ways = [way for way in ways if way.name != "mixture" or way is mixtures[0]]
            tastes = download.peers > 1 and task.server_round in TASTING
            if tastes and mixtures and mixtures[0].alpha:
                assert download.arrays is not None
                ways.append(Candidate("peers", download.arrays, 0.0))
        for way in ways:
            if self.strategy.keeps_statistics and own is not None:
                way = replace(way, arrays=keep_statistics(way.arrays, own))
            score = known["validation"].get("trained") if way.name == "own" else None
            if score is not None:
                way = replace(way, score=score, curve=known["curves"].get("trained"))
            elif judged and self.strategy.selects and way.name != unread:
                set_model_arrays(network, way.arrays)
                way = self._scored(network, way)
            found.append(way)
        return found

    def _as_kept(
        self, network: nn.Module, tried: Sequence[Candidate], download: Download
    ) -> list[Candidate]:
        """Return what was tried, the group's model scored as the server would keep it.

        The client tried it with its own batch-norm statistics; the server has their mean.
        """
        found = list(tried)
        for number, way in enumerate(found):
            model = download.model if way.name == "model" and self.strategy.selects else None
            if model is not None and other_statistics(way.arrays, model):
                set_model_arrays(network, model)
                found[number] = self._scored(network, replace(way, arrays=model))
        return found

    def _keep(
        self, tried: Sequence[Candidate], place: Path, before: Path, task: Task, *, judged: bool
    ) -> tuple[float | None, int, Any]:
        """Write the personal weights that validation prefers so far.

        Return their score, their round, 0 for an earlier run's, and their presence curve.

        In the closing pass an earlier round's stay only where they lead by more than chance; in a
        round that is not judged they always stay. A recipe that selects nothing keeps what the
        server sent last. What was best while a client shared does not count afterwards; one among
        strangers never shared.
        """
        server_round = task.server_round
        if not self.strategy.selects:
            save_arrays(place / "kept.safetensors", tried[0].arrays)
            return None, server_round, None
        best = max(tried, key=lambda c: c.score if math.isfinite(c.score) else -1.0)
        score = round(best.score, 6)
        if before.exists():
            known = self.rounds.reply(before)
            last = self.rounds.before(server_round)
            shared = known["chosen"] == "mixture" and self._shares(last)
            ended = shared and not self._shares(server_round)
            old = float(known["best"])
            closing = not task.steps
            stays = leads(old, score, self.cases.validation) if closing else old >= score
            if not judged or (stays and not ended):
                save_arrays(place / "kept.safetensors", load_arrays(before / "kept.safetensors"))
                kept = known["curves"]["kept"]
                return old, int(known["best_round"]), kept
        save_arrays(place / "kept.safetensors", best.arrays)
        return score, 0 if best.name == EARLIER else server_round, best.curve

    def _scored(self, network: nn.Module, candidate: Candidate) -> Candidate:
        """Return the candidate, whose weights ``network`` holds, with what validation says."""
        found = self.cases.judge(network, self.precision)
        return replace(candidate, score=found.dice, curve=found.curve)

    def _start_model(self) -> Any:
        return self.config.model.model_copy(update={"pretrained": False, "weights": None})
