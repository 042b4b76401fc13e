"""How much faster is the local loop than a plain float32 loop, and how much of it is the network?

usage: python benchmarks/training_throughput.py [--steps 4] [--out FILE.csv]

Both train the published network on batches of 8 at 240×240 in one run, the plain loop first and
last, so that a machine that changes pace shows. The share inside the network is one minus waiting
for batches and bookkeeping.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from flames.config import TrainingConfig
from flames.data.batches import training_batches
from flames.data.slices import load_slices
from flames.data.synthetic import make_store
from flames.losses import paper_loss
from flames.models import densenet_unet
from flames.models.precision import Precision, choose_precision
from flames.runs import save_csv
from flames.training.loop import make_optimizer, train

BATCH, SIZE = 8, 240


def plain(steps: int) -> float:
    """Return seconds a step of a loop as a tutorial writes it."""
    network = densenet_unet().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images, labels = torch.randn(BATCH, 1, SIZE, SIZE), torch.zeros(BATCH, 1, SIZE, SIZE)

    def step() -> None:
        optimizer.zero_grad()
        paper_loss(network(images), labels).backward()
        optimizer.step()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - started) / steps


def ours(steps: int, precision: Precision) -> tuple[float, float]:
    """Return seconds a step of the project's loop, and the share of it inside the network."""
    config = TrainingConfig(batch_size=BATCH, loss="paper", optimizer="adam")
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(
            Path(folder) / "us", site="us", modality="US", organ="breast", seed=0, cases=12
        )
        batches = training_batches(
            [load_slices(store, "train", SIZE)],
            modality="US",
            batch_size=BATCH,
            tumour_fraction=0.67,
            augmented=True,
            seed=0,
        )
        network = precision.place(densenet_unet())
        optimizer = make_optimizer(network, config)

        def run(count: int) -> float:
            return train(
                network,
                optimizer,
                batches,
                config=config,
                precision=precision,
                steps=range(count),
                total_steps=count,
            ).data_seconds

        run(1)
        started = time.perf_counter()
        waited = run(steps)
        spent = time.perf_counter() - started
    return spent / steps, 1 - waited / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    precision = choose_precision()
    before = plain(options.steps)
    step, inside = ours(options.steps, precision)
    after = plain(options.steps)
    row = {
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": precision.describe(),
        "plain_seconds_a_step": round((before + after) / 2, 3),
        "plain_first": round(before, 3),
        "plain_last": round(after, 3),
        "flames_seconds_a_step": round(step, 3),
        "speed_ratio": round((before + after) / 2 / step, 2),
        "share_inside_network": round(inside, 4),
    }
    save_csv(options.out, [row])
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
