"""A run folder at the server, with what only a network needs: facts of sites, state, events."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flames.config import RunConfig, load_config
from flames.errors import FlamesError
from flames.federation.beginning import check_start
from flames.federation.earlier import KEPT, earlier_digests, keep_models
from flames.federation.environment import describe_environment
from flames.federation.network.consortium import Record
from flames.federation.network.facts import SiteFacts
from flames.federation.network.run_book import RUN_NAME, RunBook, refuse_files
from flames.federation.server import Server
from flames.files import save_json, save_text
from flames.runs import RunFolder

MOMENTS = ("since", "turn", "seen")
"""When the open round began, when its last turn ended, and when a job was last seen in it."""


@dataclass(frozen=True)
class RunState:
    """Paths and small files of one run at the server."""

    path: Path
    open: bool
    """Whether sites that join the consortium later take part too."""

    @classmethod
    def claim(cls, path: Path, config_text: str, *, everybody: bool) -> RunState:
        """Return the run at ``path``, made when it is new, cleared of half-done things."""
        state = cls(path, everybody)
        if not state.run.config.exists():
            save_text(state.run.config, config_text)
        for partial in state.run.state.glob("*/.round-*.partial"):
            shutil.rmtree(partial)
        return state

    @property
    def run(self) -> RunFolder:
        """Return the run folder."""
        return RunFolder(self.path)

    @cached_property
    def config(self) -> RunConfig:
        """Return the run's configuration.

        Raises:
            FlamesError: It cannot be read, or names a file of this machine.
        """
        config = load_config(self.run.config)
        refuse_files(config)
        return config

    def bring_earlier(self, by: str) -> None:
        """Bring the models of the run that this one begins with, if any, once.

        Args:
            by: Who started this run: whoever started the other may use its models.

        Raises:
            FlamesError: The server has no such run, it is somebody else's or not finished, or its
                models do not fit.
        """
        if self.config.start is None or (self.run.state / KEPT).exists():
            return
        name = self.config.start.name  # the server's own runs only, whatever the folder was
        folder = self.path.parent / name
        known = RunBook(folder).read() if RUN_NAME.fullmatch(name) else {}
        if not known:
            raise FlamesError(
                f"the server has no run {name!r} to begin with",
                "name the folder of a finished run of this consortium",
            )
        if known.get("by") != by:
            raise FlamesError(
                f"the run {name} is {known.get('by')}'s, and {by or 'nobody'} would begin with it",
                f"let {known.get('by')} start the new run",
            )
        check_start(folder, self.config)
        began = {"start": earlier_digests(folder)}
        save_json(self.run.environment, describe_environment({}) | began)
        keep_models(folder, self.run.state)

    @property
    def config_text(self) -> str:
        """Return the configuration as sites received it."""
        return self.run.config.read_text(encoding="utf-8")

    @property
    def events(self) -> Path:
        """Return the journal of the run."""
        return self.run.state / "events.jsonl"

    @property
    def desk(self) -> Path:
        """Return where the running job says how it stands."""
        return self.run.state / "desk.json"

    def site_names(self, record: Record) -> list[str]:
        """Return the sites of the run that the consortium knows, in the configuration's order."""
        listed = [site.name for site in self.config.sites if site.name in record.sites]
        later = [name for name in record.sites if self.open and name not in listed]
        return [*listed, *later]

    def save_facts(self, site: str, facts: SiteFacts) -> None:
        """Keep what a site said of itself, and what the run folder shows of it.

        That comes first: once the facts are kept, nothing else is written for them again.
        """
        known = self.facts()
        if known.get(site) == facts:
            return
        known = self._in_order(known | {site: facts})
        if not self.run.environment.exists():
            save_json(self.run.environment, describe_environment({}))
        environment = json.loads(self.run.environment.read_text(encoding="utf-8"))
        environment["stores"] = {name: f.cases_digest for name, f in known.items()}
        save_json(self.run.environment, environment)
        shown = {name: f.splits for name, f in known.items() if f.splits is not None}
        save_json(self.run.splits, shown)
        save_json(self._facts, {name: f.model_dump(mode="json") for name, f in known.items()})

    def facts(self) -> dict[str, SiteFacts]:
        """Return what sites said of themselves, in the order of the configuration."""
        if not self._facts.exists():
            return {}
        content = json.loads(self._facts.read_text(encoding="utf-8"))
        return self._in_order({n: SiteFacts.model_validate(f) for n, f in content.items()})

    def _in_order(self, facts: Mapping[str, SiteFacts]) -> dict[str, SiteFacts]:
        """Return facts in the order of the configuration; of those it does not name, by name."""
        order = [site.name for site in self.config.sites]
        names = sorted(facts, key=lambda n: (order.index(n) if n in order else len(order), n))
        return {name: facts[name] for name in names}

    def round_since(self, number: int, moment: float) -> float:
        """Return when a round began, as if no time had passed between its jobs.

        Called as the round begins, and as each job does.
        """
        known = self._round()
        if known.get("round") != number:
            known = {"round": number, "since": moment}
        last = max(known[key] for key in MOMENTS if key in known)
        idle = max(0.0, moment - last)
        known |= {key: known[key] + idle for key in MOMENTS if key in known} | {"seen": moment}
        save_json(self._round_file, known)
        return float(known["since"])

    def turn_since(self, number: int) -> float | None:
        """Return when the last site that takes turns in a round answered, or the round began.

        None before it is noted that the round began, as while the disk is full.
        """
        known = self._round()
        if known.get("round") != number:
            return None
        return float(known.get("turn", known["since"]))

    def note_turn(self, moment: float) -> None:
        """Write down that a site that takes turns answered."""
        save_json(self._round_file, self._round() | {"turn": moment})

    def note_alive(self, moment: float) -> None:
        """Write down that a job runs."""
        save_json(self._round_file, self._round() | {"seen": moment})

    def best_models(self, server: Server, modality: str) -> dict[str, dict[str, np.ndarray]]:
        """Return the server's models that serve a modality, by group."""
        group = server.strategy.group_of(modality)
        models = server.best_models()
        return {name: arrays for name, arrays in models.items() if name == group}

    def save_desk(self, content: dict[str, Any]) -> None:
        """Write how the running job stands."""
        save_json(self.desk, content)

    def _round(self) -> dict[str, Any]:
        path = self._round_file
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def _round_file(self) -> Path:
        return self.run.state / "round.json"

    @property
    def _facts(self) -> Path:
        return self.run.state / "facts.json"
