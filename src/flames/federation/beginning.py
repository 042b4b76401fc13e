"""What a run begins with: its strategy and its first weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from flames.array_files import load_arrays, save_arrays
from flames.config import PlanConfig, RunConfig
from flames.errors import FlamesError
from flames.federation.exchange import derive_seed
from flames.files import flush, writing
from flames.runs import RunFolder
from flames.strategies import FURTHER, STRATEGIES, Knobs, Strategy, by_modality, personalised

Arrays = Mapping[str, np.ndarray]
FirstWeights = Callable[[str], Arrays]
"""From a modality to the weights that its clients begin with."""
APART = ("flames", "paper", "modality", "local", "central")
"""Strategies that never mix modalities, beside those called ``modality-…``."""


def make_strategy(config: RunConfig) -> Strategy:
    """Return the configured strategy.

    Raises:
        FlamesError: It mixes modalities, whose networks differ in three dimensions.
    """
    chosen = config.strategy
    if chosen.name in FURTHER:
        knobs = Knobs(chosen.proximal_mu, chosen.ditto_lambda, chosen.server_rate)
        strategy = FURTHER[chosen.name](knobs)
    elif chosen.name == "flames":
        alpha = None if chosen.alpha == "tuned" else float(chosen.alpha)
        relay = chosen.relay if config.hands_on else 1
        strategy = by_modality(personalised(alpha, relay, chosen.first_steps), chosen.name)
    else:
        strategy = STRATEGIES[chosen.name](None)
    apart = chosen.name in APART or chosen.name.startswith("modality-")
    if config.data.dimensions == 3 and (not apart or strategy.advance is not None):
        raise FlamesError(
            f"strategy {chosen.name!r} keeps one network or memory for all modalities, and in "
            "three dimensions each modality has its own",
            f"choose {', '.join(APART)}, or data.dimensions = 2",
        )
    return strategy


def first_weights(config: RunConfig, run: RunFolder) -> FirstWeights:
    """Return the first weights of a run by modality, made once and kept in its folder.

    In two dimensions every modality begins with the same.
    """
    known: dict[str, Arrays] = {}

    def weights(modality: str) -> Arrays:
        plan = config.plan_for(modality)
        name = "start" if plan is None else f"start-{modality}"
        if name not in known:
            known[name] = _start_arrays(config, plan, run, name)
        return known[name]

    return weights


def _start_arrays(
    config: RunConfig, plan: PlanConfig | None, run: RunFolder, name: str
) -> dict[str, np.ndarray]:
    path = run.state / f"{name}.safetensors"
    if not path.exists():
        import torch

        from flames.models import make_model
        from flames.models.weights import model_arrays

        torch.manual_seed(derive_seed(config.seed, "start"))
        save_arrays(path, model_arrays(make_model(config.model, plan)))
        with writing(path):
            flush(path)
    return load_arrays(path)
