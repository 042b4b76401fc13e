"""A site's policy: what it takes part in, what may leave it, and when; the site's own choice."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from datetime import time
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from flames.config import ModelName, RunConfig, Section, StrategyName
from flames.errors import FlamesError
from flames.federation.beginning import make_strategy
from flames.federation.budget import Budget, Member
from flames.federation.exchange import Task
from flames.federation.network.consortium import validated

STRATEGIES = tuple(name for name in get_args(StrategyName) if name != "central")
CASE_SCORES = "scores per case"
CASE_NAMES = "case names"
PERSONAL_WEIGHTS = "personal weights"
HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")


class Policy(Section):
    """What holds at a site, whatever the server asks; the defaults hold without a file."""

    strategies: tuple[StrategyName, ...] = STRATEGIES
    models: tuple[ModelName, ...] = get_args(ModelName)
    most_rounds: int = Field(1000, ge=1)
    most_local_steps: int = Field(1000, ge=1)
    """Optimiser steps in a round, on average over the rounds."""
    fewest_local_steps: int = Field(1, ge=1)
    """Optimiser steps behind the weights that leave after a round, at least, in every round."""
    most_hours: float = Field(168.0, gt=0)
    """Hours of work for one run: training, validation and scoring."""
    fewest_peers: int = Field(0, ge=0)
    """Other sites of its modality that must take part, as the server says."""
    most_bytes: int = Field(1_000_000_000, ge=100_000)
    """Size of one message that leaves."""
    scores: Literal["cases", "aggregates"] = "cases"
    """Whether scores and names of single test cases leave, or means over them only."""
    personal_weights: bool = True
    """Whether the site's personal model leaves after the last round."""
    relay: bool = True
    """Whether another site may receive this site's weights right after its training. A mean may be
    of this site alone whatever this says."""
    moments: bool = True
    """Whether the optimiser's moments may go with them."""
    working_hours: str | None = None
    """Such as ``18:00-07:00``, in the site's local time."""
    approval: bool = False
    """Whether a person at the site must approve each run."""

    @field_validator("strategies", "models")
    @classmethod
    def _not_none(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one, else every run is refused")
        return value

    @model_validator(mode="after")
    def _some_number_of_steps(self) -> Policy:
        if self.fewest_local_steps > self.most_local_steps:
            raise ValueError(
                f"fewest-local-steps = {self.fewest_local_steps} is above "
                f"most-local-steps = {self.most_local_steps}, so that every run is refused"
            )
        return self

    @field_validator("working_hours")
    @classmethod
    def _two_times(cls, value: str | None) -> str | None:
        if value is not None and (not HOURS.match(value) or value[:5] == value[6:]):
            raise ValueError("write two different times of day, such as 18:00-07:00")
        return value

    def is_open(self, moment: time) -> bool:
        """Return whether work may begin at a time of day; the hours may reach over midnight.

        >>> night = Policy(working_hours="18:00-07:00")
        >>> night.is_open(time(23)), night.is_open(time(6, 59)), night.is_open(time(7))
        (True, True, False)
        """
        if self.working_hours is None:
            return True
        start, end = (time.fromisoformat(part) for part in self.working_hours.split("-"))
        if start < end:
            return start <= moment < end
        return moment >= start or moment < end

    def refuses(self, config: RunConfig) -> str | None:
        """Return why the site takes no part in a run of this configuration, or None."""
        steps = config.most_steps
        fewest = behind = 1
        if self.fewest_local_steps > 1:
            fewest = _fewest_steps(config)
            behind = _behind(fewest, config)
        checks = (
            (config.strategy.name in self.strategies, f"strategy {config.strategy.name!r}"),
            (config.model.name in self.models, f"model {config.model.name!r}"),
            (config.rounds <= self.most_rounds, f"{config.rounds} rounds"),
            (steps <= self.most_local_steps, f"{steps} local steps"),
            (behind >= self.fewest_local_steps, f"rounds of {_steps(fewest, behind)}"),
            (self.relay or not config.hands_on, "handing weights on to another site"),
            (self.moments or not config.hands_moments_on, "handing the optimiser's moments on"),
        )
        limits = (
            *("strategies", "models", "most-rounds", "most-local-steps", "fewest-local-steps"),
            *("relay", "moments"),
        )
        for (allowed, what), limit in zip(checks, limits, strict=True):
            if not allowed:
                return f"its policy does not allow {what} ({limit} = {self._said(limit)})"
        return None

    def refuses_task(self, task: Task, config: RunConfig, site: str) -> str | None:
        """Return why ``site`` does not do a task that asks for what its run's file does not.

        The configuration is what the policy and a person looked at.
        """
        steps = task.steps
        total = config.rounds * config.steps_of(site)
        if not 1 <= task.server_round <= config.rounds + 1:
            return f"its policy does not allow round {task.server_round} of {config.rounds}"
        if task.total_steps > total or not 0 <= steps.start <= steps.stop <= total:
            found = f"steps {steps.start} to {steps.stop} of {task.total_steps}"
            return f"its policy does not allow {found}, where the configuration says {total}"
        behind = _behind(len(steps), config)
        if 0 < behind < self.fewest_local_steps:
            found = f"a round of {_steps(len(steps), behind)}"
            limit = f"fewest-local-steps = {self.fewest_local_steps}"
            return f"its policy does not allow {found} ({limit})"
        if task.download.wants_moments and not config.hands_moments_on:
            return (
                "its policy does not allow to send moments, which the configuration does not want"
            )
        return None

    def forbids(self, holds: Collection[str], size: int) -> str | None:
        """Return why a message may not leave, or None.

        Args:
            holds: What is in it, in the words of the log of what leaves.
            size: Its bytes.
        """
        kept = {CASE_SCORES, CASE_NAMES} if self.scores == "aggregates" else set()
        kept |= set() if self.personal_weights else {PERSONAL_WEIGHTS}
        found = sorted(kept & set(holds))
        if found:
            return f"its policy lets no {found[0]} leave"
        if size > self.most_bytes:
            return (
                f"its policy lets no message of {size:,} bytes leave "
                f"(most-bytes = {self.most_bytes:,})"
            )
        return None

    def _said(self, key: str) -> str:
        value = getattr(self, key.replace("-", "_"))
        return ", ".join(value) if isinstance(value, tuple) else str(value).lower()


def _steps(number: int, behind: int) -> str:
    """Return a round's steps in words, with those behind what leaves where they are fewer."""
    part = "" if behind == number else f", of which {behind} train what leaves"
    return f"{number} local step{'' if number == 1 else 's'}{part}"


def _behind(steps: int, config: RunConfig) -> int:
    """Return how many of a round's steps train the weights that leave after it."""
    return make_strategy(config).rule.shared_steps(steps)


def _fewest_steps(config: RunConfig) -> int:
    """Return the optimiser steps of the shortest round of any site."""
    names = [site.name for site in config.sites]
    members = {name: Member(name, "", 1, config.steps_of(name)) for name in names}
    budget = Budget(members, config, make_strategy(config).schedule)
    return min((budget.fewest(name) for name in names), default=config.training.local_steps)


def load_policy(path: Path | None) -> Policy:
    """Return the policy in a TOML file, or the default one.

    Raises:
        FlamesError: The file is missing, no TOML, or holds an unknown key or a bad value.
    """
    if path is None:
        return Policy()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FlamesError(f"cannot read {path}: {error}", "name a policy file") from error
    except tomllib.TOMLDecodeError as error:
        raise FlamesError(f"{path} is not valid TOML: {error}", "mend that line") from error
    policy: Policy = validated(Policy, content, str(path))
    return policy
