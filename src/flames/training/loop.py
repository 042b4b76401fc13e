"""The one local training loop, for every method and every network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from flames.config import TrainingConfig
from flames.errors import FlamesError
from flames.losses import LOSSES, Loss, over_levels
from flames.models.precision import Precision

Progress = Callable[[int, float], None]
Penalty = Callable[[nn.Module], Tensor]
"""What a strategy adds to the loss, from the model's weights."""


@dataclass(frozen=True)
class TrainResult:
    """What one stretch of training did."""

    loss: float
    """Mean over the steps; NaN for none."""
    seconds: float
    data_seconds: float
    """Part of `seconds` spent waiting for batches."""


def make_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Return AdamW with decay on matrices only, or the published recipe's Adam."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind([g for g in groups if g["params"]], lr=config.learning_rate, fused=True)


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Return the rate of one step: a linear rise, then a cosine over the whole run down to 1 %.

    The published recipe's Adam keeps its rate.

    Args:
        step: Steps already done in the run, from 0.
        total_steps: Steps of the whole run, all rounds together.
        config: Its ``learning_rate`` is the highest rate, its ``warmup`` the rising share.
    """
    if config.optimizer == "adam":
        return config.learning_rate
    rising = max(1, round(config.warmup * total_steps))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    done = min(1.0, (step - rising) / max(1, total_steps - rising))
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def train(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    *,
    config: TrainingConfig,
    precision: Precision,
    steps: range,
    total_steps: int,
    progress: Progress | None = None,
    penalty: Penalty | None = None,
    correct: Callable[[nn.Module], None] | None = None,
    loss_function: Loss | None = None,
) -> TrainResult:
    """Train ``model`` in place for the steps numbered by ``steps`` out of ``total_steps``.

    ``penalty`` is added to the loss, and not told with it; ``correct`` may change the gradients
    before they are clipped; ``loss_function`` wins over the configured loss.

    Raises:
        FlamesError: The loss or the gradients are not finite.
    """
    model.train()
    loss_function = loss_function or LOSSES[config.loss]
    started, waited, total = time.perf_counter(), 0.0, 0.0
    for done, step in enumerate(steps):
        asked = time.perf_counter()
        images, labels = next(batches)
        waited += time.perf_counter() - asked
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps, config)
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            outputs = model(precision.move(images))
        loss = over_levels(loss_function, outputs, labels.to(precision.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FlamesError(
                f"the loss became {value} at optimiser step {step + 1}",
                "lower training.learning-rate, or look for damaged images with 'flames data check'",
            )
        if penalty is not None:
            loss = loss + penalty(model)
        loss.backward()
        if correct is not None:
            correct(model)
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm))
        if not math.isfinite(norm):
            raise FlamesError(
                f"the gradients became {norm} at optimiser step {step + 1} (loss {value:.4g})",
                "try training.precision = 'float32', or a lower training.learning-rate",
            )
        optimizer.step()
        total += value
        if progress is not None:
            progress(done + 1, value)
    mean = total / len(steps) if len(steps) else math.nan
    return TrainResult(mean, time.perf_counter() - started, waited)
