"""What a run begins with: its strategy and its first weights."""

from __future__ import annotations

import numpy as np

from flames.array_files import load_arrays, save_arrays
from flames.config import RunConfig
from flames.federation.exchange import derive_seed
from flames.runs import RunFolder
from flames.strategies import FURTHER, STRATEGIES, Knobs, Strategy


def make_strategy(config: RunConfig) -> Strategy:
    """Return the configured strategy."""
    chosen = config.strategy
    if chosen.name in FURTHER:
        knobs = Knobs(chosen.proximal_mu, chosen.ditto_lambda, chosen.server_rate)
        return FURTHER[chosen.name](knobs)
    alpha = config.strategy.alpha
    return STRATEGIES[config.strategy.name](None if alpha == "tuned" else float(alpha))


def start_arrays(config: RunConfig, run: RunFolder) -> dict[str, np.ndarray]:
    """Return the first weights of a run, made once and kept in its folder."""
    path = run.state / "start.safetensors"
    if not path.exists():
        import torch

        from flames.models import make_model
        from flames.models.weights import model_arrays

        torch.manual_seed(derive_seed(config.seed, "start"))
        save_arrays(path, model_arrays(make_model(config.model)))
    return load_arrays(path)
