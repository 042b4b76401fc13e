"""Does each network work in the memory layout, and with the layers, that are fastest for it?

usage: python benchmarks/layouts.py [--threads 1] [--repeats 7] [--out benchmarks/layouts.csv]

For each network and dtype: milliseconds of a training step and of a prediction as FLAMES does them,
and the same network in the other layout, and with PyTorch's own layers in both. All ways of a
row take turns, and each number is a median; ratios are to the first. On a processor whose ratios
fall well below 1, `flames.models.precision.Precision.place` chooses wrongly.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from flames.config import ModelConfig, PlanConfig
from flames.models import make_model
from flames.models.norm import QuickInstanceNorm2d, QuickInstanceNorm3d
from flames.models.precision import (
    DepthwiseConv2d,
    Precision,
    TurnedGroupNorm,
    choose_precision,
)
from flames.models.unet3d import unet3d
from flames.runs import save_csv

PLAN = PlanConfig(
    spacing=(3.0, 1.0, 1.0),
    patch=(16, 64, 64),
    kernels=((3, 3, 3),) * 4,
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "unet": (lambda: make_model(ModelConfig(name="unet")), (8, 1, 96, 96), (32, 1, 96, 96)),
    "student": (lambda: make_model(ModelConfig(name="student")), (8, 1, 96, 96), (32, 1, 96, 96)),
    "unet3d": (lambda: unet3d(PLAN), (2, 1, 16, 64, 64), (4, 1, 16, 64, 64)),
    "efficientnet-unet": (
        lambda: make_model(ModelConfig(name="efficientnet-unet", pretrained=False)),
        (8, 1, 160, 160),
        (32, 1, 160, 160),
    ),
}
"""How each is made, and the shapes of a training batch and of a batch to predict."""
QUICK: dict[type[nn.Module], type[nn.Module]] = {
    QuickInstanceNorm2d: nn.InstanceNorm2d,
    QuickInstanceNorm3d: nn.InstanceNorm3d,
    DepthwiseConv2d: nn.Conv2d,
    TurnedGroupNorm: nn.GroupNorm,
}
"""Layers of this package, and PyTorch's own."""


def layout(network: nn.Module, *, last: bool) -> torch.memory_format:
    deep = max(p.dim() for p in network.parameters()) == 5
    if not last:
        return torch.contiguous_format
    return torch.channels_last_3d if deep else torch.channels_last


def lies_last(network: nn.Module) -> bool:
    """Return whether a placed network's kernels are channels last."""
    kernels = [p for p in network.parameters() if p.dim() > 3 and min(p.shape) > 1]
    return not kernels[0].is_contiguous()


def ways(make: Callable[[], nn.Module], precision: Precision) -> dict[str, tuple[nn.Module, bool]]:
    """Return each way's network, and whether it is channels last; the first is as placed."""
    found = {}
    placed = precision.place(make())
    last = lies_last(placed)
    found["placed"] = (placed, last)
    other = precision.place(make())
    found["other_layout"] = (other.to(memory_format=layout(other, last=not last)), not last)  # type: ignore[call-overload]
    if any(type(module) in QUICK for module in placed.modules()):
        for name, turned in (("plain", last), ("other_layout_plain", not last)):
            network = precision.place(make())
            for module in network.modules():
                if type(module) in QUICK:
                    module.__class__ = QUICK[type(module)]
            network = network.to(memory_format=layout(network, last=turned))  # type: ignore[call-overload]
            found[name] = (network, turned)
    return found


def step(network: nn.Module, images: torch.Tensor, precision: Precision) -> None:
    with precision.autocast():
        outputs = network(images)
    first = outputs[0] if isinstance(outputs, list | tuple) else outputs
    first.float().square().mean().backward()
    network.zero_grad()


@torch.inference_mode()
def predict(network: nn.Module, images: torch.Tensor, precision: Precision) -> None:
    with precision.autocast():
        network(images)


def row(name: str, wanted: str, repeats: int) -> list[dict[str, object]]:
    make, few, many = NETWORKS[name]
    precision = choose_precision(wanted)
    chosen = ways(make, precision)
    rows: list[dict[str, object]] = []
    for what, act, shape in (("training step", step, few), ("prediction", predict, many)):
        images = torch.randn(shape)
        spent: dict[str, list[float]] = {way: [] for way in chosen}
        for _ in range(repeats + 1):
            for way, (network, last) in chosen.items():
                network.train(what != "prediction")
                laid = images.to(memory_format=layout(network, last=last))
                started = time.perf_counter()
                act(network, laid, precision)
                spent[way].append(1000 * (time.perf_counter() - started))
        median = {way: statistics.median(values[1:]) for way, values in spent.items()}
        rows.append(
            {
                "network": name,
                "dtype": wanted,
                "what": what,
                "images": shape[0],
                "threads": torch.get_num_threads(),
                "layout": "channels last" if chosen["placed"][1] else "channels first",
                "ms": round(median["placed"], 1),
                **{
                    f"ratio_{way}": round(median[way] / median["placed"], 2)
                    if way in median
                    else ""
                    for way in ("other_layout", "plain", "other_layout_plain")
                },
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, object]] = []
    for name in NETWORKS:
        for wanted in ("bfloat16", "float32"):
            rows += row(name, wanted, options.repeats)
    save_csv(options.out, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
