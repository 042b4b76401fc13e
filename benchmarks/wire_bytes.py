"""How many bytes does a client move in a round, and how long does coding take?

usage: python benchmarks/wire_bytes.py [--steps 3] [--size 64] [--model densenet-unet] [--out FILE]

A made-up ultrasound group of five, each trained from common weights on its own images, stands for a
round's updates. One client then receives what a strategy sends in a later round, holding its last
update, and sends the update that it trains from there. Every setting codes the same weights. The
public code moves 750 MB: six copies of 31.26 M float32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flames.config import ModelConfig, TrainingConfig, WireConfig
from flames.data.batches import training_batches
from flames.data.slices import load_slices
from flames.data.synthetic import make_store
from flames.federation.exchange import Reply, Task, begun_with
from flames.federation.leaving import WHOLE_ROUNDS, unwrap, wrap
from flames.federation.network.tasks import encode_task, encode_update
from flames.models import make_model
from flames.models.precision import choose_precision
from flames.models.weights import model_arrays, set_model_arrays
from flames.runs import save_csv
from flames.strategies import STRATEGIES, Download, Update
from flames.training.loop import make_optimizer, train
from flames.wire.coding import code, restore

PUBLIC_MB = 750.0
CLIENTS = 5
LATER = WHOLE_ROUNDS + 1
Arrays = Mapping[str, np.ndarray]
SETTINGS: dict[str, dict[str, object]] = {
    "float32": {},
    "float32, delta": {"delta": True},
    "float16": {"encoding": "float16"},
    "bfloat16": {"encoding": "bfloat16"},
    "float16, delta": {"encoding": "float16", "delta": True},
    "int8": {"encoding": "int8"},
    "int8, delta": {"encoding": "int8", "delta": True},
    "int8, delta, top-k 0.25": {"encoding": "int8", "delta": True, "top-k": 0.25},
    "int8, delta, top-k 0.1": {"encoding": "int8", "delta": True, "top-k": 0.1},
}


def trained(start: Arrays, model: ModelConfig, *, seed: int, steps: int, size: int) -> Arrays:
    """Return weights after some steps on one client's images."""
    config = TrainingConfig(batch_size=4, learning_rate=3e-3, warmup=0.0)
    torch.manual_seed(seed)
    network = make_model(model)
    set_model_arrays(network, start)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(
            Path(folder) / "us", site="us", modality="US", organ="breast", seed=seed, cases=12
        )
        batches = training_batches(
            [load_slices(store, "train", size)],
            modality="US",
            batch_size=4,
            tumour_fraction=0.67,
            augmented=True,
            seed=seed,
        )
        train(
            network,
            make_optimizer(network, config),
            batches,
            config=config,
            precision=choose_precision("float32"),
            steps=range(steps),
            total_steps=2 * steps,
        )
    return model_arrays(network)


def travel(
    wire: WireConfig, download: Download, held: Arrays, own_share: float, after: Arrays
) -> dict[str, float]:
    """Return bytes and seconds of one client's round."""
    base = held if wire.delta else None
    started = time.perf_counter()
    pairs = {"arrays": download.arrays, "model": download.model}
    coded = {name: code(a, base, wire) for name, a in pairs.items() if a is not None}
    task = Task(LATER, range(10), 60, download, 1 if wire.delta else 0)
    down = len(encode_task(task, coded, wire, {}))
    server = time.perf_counter() - started
    read = {name: restore(one, base) for name, one in coded.items()}
    mixes = download.use == "mix"
    reply = Reply(
        "us", "US", 9, {}, own_share, "mixture" if mixes else "model", None, 1, 0.5, 1e-3, {}, 2
    )
    seen = replace(download, arrays=read.get("arrays"), model=read.get("model"))
    begun = begun_with(seen, held, reply.chosen, reply.alpha)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        none = place / "none"
        wrap(
            after,
            place,
            server_round=LATER,
            reply=reply,
            begun=begun,
            waiting=none,
            own_head=download.own_head,
            wire=wire,
        )
        parcel, digest = unwrap(place)
    up = len(encode_update(reply, LATER, parcel, digest, wire))
    client = time.perf_counter() - started
    return {"down": down, "up": up, "server_seconds": server, "client_seconds": client}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--model", default="densenet-unet")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    model = ModelConfig(name=options.model)
    torch.manual_seed(0)
    start = model_arrays(make_model(model))
    known = {
        f"us-{k}": trained(start, model, seed=k, steps=options.steps, size=options.size)
        for k in range(CLIENTS)
    }
    # As many cases and as much to say for everybody; the group's own peers are weighed unequally.
    updates = {
        name: Update(
            name,
            "US",
            arrays,
            9 + k,
            {peer: 0.5 + 0.1 * j for j, peer in enumerate(known) if peer != name},
        )
        for k, (name, arrays) in enumerate(known.items())
    }
    rows = []
    for strategy in ("paper", "flames"):
        download = STRATEGIES[strategy](None).download("us-0", updates)
        share = download.alpha if download.alpha is not None else download.own_share
        begun = begun_with(download, known["us-0"], "mixture", share)
        assert begun is not None
        after = trained(begun, model, seed=99, steps=options.steps, size=options.size)
        for name, given in SETTINGS.items():
            found = travel(WireConfig.model_validate(given), download, known["us-0"], share, after)
            both = (found["down"] + found["up"]) / 1e6
            rows.append(
                {
                    "model": options.model,
                    "parameters": sum(int(np.prod(a.shape)) for a in start.values()),
                    "strategy": strategy,
                    "setting": name,
                    "down_mb": round(found["down"] / 1e6, 2),
                    "up_mb": round(found["up"] / 1e6, 2),
                    "both_mb": round(both, 2),
                    "times_fewer_than_750_mb": round(PUBLIC_MB / both, 1),
                    "server_seconds": round(found["server_seconds"], 2),
                    "client_seconds": round(found["client_seconds"], 2),
                }
            )
            save_csv(options.out, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
