"""What a run begins with: its strategy and its first weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from flames.array_files import load_arrays, save_arrays
from flames.config import PlanConfig, RunConfig, load_config
from flames.errors import FlamesError
from flames.federation.earlier import ALL, earlier_models, kept_model
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
    apart = keeps_apart(config)
    if config.data.dimensions == 3 and (not apart or strategy.advance is not None):
        raise FlamesError(
            f"strategy {chosen.name!r} keeps one network or memory for all modalities, and in "
            "three dimensions each modality has its own",
            f"choose {', '.join(APART)}, or data.dimensions = 2",
        )
    return strategy


def keeps_apart(config: RunConfig) -> bool:
    """Return whether the strategy never mixes modalities."""
    return config.strategy.name in APART or config.strategy.name.startswith("modality-")


def check_start(folder: Path, config: RunConfig) -> None:
    """Refuse to begin ``config`` with a run whose server's models do not fit it.

    Raises:
        FlamesError: The run in ``folder`` is not finished, has no server's model, one of another
            network, or one a modality where the strategy needs one for all.
    """
    from flames.models import make_model
    from flames.models.weights import load_weights

    found = earlier_models(folder)
    if ALL not in found and not keeps_apart(config):
        raise FlamesError(
            f"{folder} has a model of {', '.join(found)}, and strategy {config.strategy.name!r} "
            "keeps one for all modalities",
            "begin with a run of such a strategy, or choose one that keeps modalities apart",
        )
    for group, path in found.items():
        plan = next((plan for modality, plan in config.plans.items() if modality == group), None)
        if config.data.dimensions == 2 or plan is not None:
            load_weights(make_model(config.model, plan), path)


def own_models(folder: Path) -> dict[str, Path]:
    """Return the files of a run's personal models by site; none where its strategy has none."""
    run = RunFolder(folder)
    return run.personal_models() if make_strategy(load_config(run.config)).personal else {}


def first_weights(config: RunConfig, run: RunFolder) -> FirstWeights:
    """Return the first weights of a run by modality, made once and kept in its folder.

    In two dimensions every modality begins with the same, unless the run has models of an earlier
    one to begin with, see `flames.federation.earlier.keep_models`.
    """
    known: dict[str, Arrays] = {}

    def weights(modality: str) -> Arrays:
        plan = config.plan_for(modality)
        apart = keeps_apart(config)
        model = kept_model(run.state, modality if apart else ALL)
        alike = plan is None and (model is None or not apart)
        name = "start" if alike else f"start-{modality}"
        if name not in known:
            path = run.state / f"{name}.safetensors"
            if not path.exists():
                _save_start(path, config, plan, model)
            known[name] = load_arrays(path)
        return known[name]

    return weights


def _save_start(path: Path, config: RunConfig, plan: PlanConfig | None, model: Path | None) -> None:
    import torch

    from flames.models import make_model
    from flames.models.weights import load_weights, model_arrays

    torch.manual_seed(derive_seed(config.seed, "start"))
    network = make_model(config.model, plan)
    if model is not None:
        load_weights(network, model)
    save_arrays(path, model_arrays(network))
    with writing(path):
        flush(path)
