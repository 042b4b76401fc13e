"""A client's round of training under a strategy's rule: the one loop, with what the rule adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from flames.config import TrainingConfig
from flames.models.precision import Precision
from flames.strategies.rules import LocalRule, decoder
from flames.training.loop import Penalty, Progress, TrainResult, train

Arrays = Mapping[str, np.ndarray]
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stretch:
    """A round's steps, and how they are taken."""

    steps: range
    total_steps: int
    config: TrainingConfig
    precision: Precision
    progress: Progress | None = None

    def halves(self) -> tuple[Stretch, Stretch]:
        """Return the first half, the longer one, and the second, which tells progress on top.

        A single step is the first half in every other round, else the second would never be.
        """
        single = len(self.steps) == 1
        first = (self.steps.start + 1) % 2 if single else (len(self.steps) + 1) // 2
        middle = self.steps.start + first
        done = middle - self.steps.start
        told = self.progress
        later: Progress | None = None if told is None else lambda n, loss: told(done + n, loss)
        one, other = range(self.steps.start, middle), range(middle, self.steps.stop)
        return (
            Stretch(one, self.total_steps, self.config, self.precision, told),
            Stretch(other, self.total_steps, self.config, self.precision, later),
        )

    def run(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Batches,
        *,
        penalty: Penalty | None = None,
        correct: Callable[[nn.Module], None] | None = None,
    ) -> TrainResult:
        """Train ``model`` for these steps."""
        return train(
            model,
            optimizer,
            batches,
            config=self.config,
            precision=self.precision,
            steps=self.steps,
            total_steps=self.total_steps,
            progress=self.progress,
            penalty=penalty,
            correct=correct,
        )


class ControlVariates:
    """SCAFFOLD's correction of one client's gradients, ``g + c − c_k``; it remembers ``mean g``."""

    def __init__(self, model: nn.Module, own: Arrays, server: Arrays) -> None:
        """Begin a round; an empty mapping stands for zeros."""
        self.shift = {
            name: _like(parameter, server.get(name)) - _like(parameter, own.get(name))
            for name, parameter in model.named_parameters()
        }
        self.total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        self.steps = 0

    def __call__(self, model: nn.Module) -> None:
        """Add up the gradients of ``model`` as they are, then correct them."""
        self.steps += 1
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    self.total[name] += parameter.grad
                    parameter.grad += self.shift[name]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the client's new control variates: the mean of its own gradients."""
        steps = max(1, self.steps)
        return {name: (total / steps).cpu().numpy() for name, total in self.total.items()}


class Mixture(nn.Module):
    """``α own + (1 − α) shared`` as one network, of which ``own`` and α learn (APFL)."""

    def __init__(self, network: nn.Module, *, own: Arrays, shared: Arrays, alpha: float) -> None:
        """Begin from arrays; ``network`` lends its layers, and its buffers are the mixture's."""
        super().__init__()
        # In a tuple, so that the network's own weights are no parameters of the mixture.
        self._network = (network,)
        names = [name for name, _ in network.named_parameters()]
        tensors = dict(network.named_parameters())
        self._names = names
        self.own = nn.ParameterList([nn.Parameter(_like(tensors[n], own[n])) for n in names])
        self._shared = [_like(tensors[n], shared[n]) for n in names]
        self.alpha = nn.Parameter(torch.tensor(alpha, device=self.own[0].device))

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of the mixture; α is brought back into [0, 1] first."""
        with torch.no_grad():
            self.alpha.clamp_(0, 1)
        network = self._network[0].train(self.training)
        return functional_call(network, self._mixed(), (image,))

    def own_arrays(self) -> dict[str, np.ndarray]:
        """Return the own weights and α, to go on from in the next round."""
        arrays = {
            name: p.detach().cpu().numpy().copy()
            for name, p in zip(self._names, self.own, strict=True)
        }
        return arrays | {"alpha": np.asarray(float(self.alpha.detach().clamp(0, 1)), np.float32)}

    def mixed_arrays(self) -> dict[str, np.ndarray]:
        """Return the mixture's weights and buffers: the client's personal model."""
        with torch.no_grad():
            self.alpha.clamp_(0, 1)
        mixed = {n: t.detach().cpu().numpy().copy() for n, t in self._mixed().items()}
        buffers = self._network[0].named_buffers()
        return mixed | {n: b.detach().cpu().numpy().copy() for n, b in buffers}

    def _mixed(self) -> dict[str, Tensor]:
        return {
            name: self.alpha * own + (1 - self.alpha) * shared
            for name, own, shared in zip(self._names, self.own, self._shared, strict=True)
        }


def proximal(received: Arrays, mu: float, model: nn.Module) -> Penalty:
    """Return ``μ/2 ‖w − received‖²`` over a model's parameters, to add to the loss."""
    fixed = {name: _like(p, received[name]) for name, p in model.named_parameters()}

    def penalty(model: nn.Module) -> Tensor:
        terms = [(p - fixed[name]).square().sum() for name, p in model.named_parameters()]
        return mu / 2 * torch.stack(terms).sum()

    return penalty


def train_shared(
    network: nn.Module,
    optimizer: Optimizer,
    batches: Batches,
    stretch: Stretch,
    *,
    rule: LocalRule,
    received: Arrays,
    correct: ControlVariates | None = None,
) -> TrainResult:
    """Train the network that travels; under `LocalRule.decoder_first` its two parts in turn."""
    if rule.decoder_first:
        late = decoder(received)
        first, second = stretch.halves()
        results = []
        for part, wanted in ((first, True), (second, False)):
            for name, parameter in network.named_parameters():
                parameter.requires_grad_((name in late) == wanted)
            optimizer.zero_grad(set_to_none=True)
            results.append(part.run(network, optimizer, batches))
        network.requires_grad_(True)
        return joined(results[0], results[1], stretch)
    penalty = proximal(received, rule.proximal_mu, network) if rule.proximal_mu else None
    return stretch.run(network, optimizer, batches, penalty=penalty, correct=correct)


def joined(first: TrainResult, second: TrainResult, stretch: Stretch) -> TrainResult:
    """Return two halves of ``stretch`` as one result, its loss the mean over all steps."""
    one, other = (len(half.steps) for half in stretch.halves())
    losses = [(n, r.loss) for n, r in ((one, first), (other, second)) if n]
    loss = sum(n * value for n, value in losses) / max(1, one + other)
    return TrainResult(
        loss, first.seconds + second.seconds, first.data_seconds + second.data_seconds
    )


def _like(tensor: Tensor, array: np.ndarray | None) -> Tensor:
    if array is None:
        return torch.zeros_like(tensor)
    return torch.from_numpy(np.array(array)).to(tensor.device, tensor.dtype)
