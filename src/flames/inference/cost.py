"""What a model costs where it is used: parameters, memory and time."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from flames.inference.score import TrainedModel


def cost(model: TrainedModel, name: str) -> dict[str, Any]:
    """Return what a model costs: parameters, MB of weights and activations, ms an image.

    Milliseconds are medians on this processor in float32 with torch's present number of threads, of
    one image alone and of an image in a batch of 16. Activations are the outputs of all layers for
    one image.
    """
    network, device = model.network.eval(), next(model.network.parameters()).device
    size = model.image_size
    weights = parameters(network)
    return {
        "model": name,
        "modality": model.modality,
        "parameters": weights,
        "weights_mb": round(4 * weights / 1e6, 3),
        "activations_mb": round(_activations(network, size, device) / 1e6, 3),
        "ms_alone": round(_milliseconds(network, size, 1, device), 2),
        "ms_in_batch": round(_milliseconds(network, size, 16, device), 2),
        "threads": torch.get_num_threads(),
    }


def parameters(network: nn.Module) -> int:
    """Return the number of a network's weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def _activations(network: nn.Module, size: int, device: torch.device) -> int:
    total = 0

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * output.element_size()

    leaves = [m for m in network.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(add) for leaf in leaves]
    with torch.inference_mode():
        network(torch.zeros(1, 1, size, size, device=device))
    for hook in hooks:
        hook.remove()
    return total


def _milliseconds(network: nn.Module, size: int, batch: int, device: torch.device) -> float:
    images = torch.zeros(batch, 1, size, size, device=device)
    spent = []
    with torch.inference_mode():
        for _ in range(62 if batch == 1 else 12):
            # Processor time of this process: what runs beside it must not count.
            started = time.process_time() if device.type == "cpu" else time.perf_counter()
            network(images)
            if device.type == "cuda":
                torch.cuda.synchronize()
            ended = time.process_time() if device.type == "cpu" else time.perf_counter()
            spent.append(ended - started)
    return 1000 * sorted(spent[2:])[len(spent[2:]) // 2] / batch
