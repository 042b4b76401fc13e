"""Does the server's memory grow with the number of clients, and how fast does it mix?

usage: python benchmarks/mixing_memory.py [--clients 5,20,40,200] [--megabytes 125] [--files 40]
       [--out FILE.csv]

Each number of clients is one file a client on disk and one fresh process that mixes them, whose
peak memory over what it had with nothing but imports is counted in models. Beside it, in the same
process and run and on the same arrays, in memory: ``numpy.mean`` over a stack, and float32 sums in
place without weights. Rates are by processor time, so that other work on the machine does not
count. Clients beyond the number of files read the same files again, each by a mapping of its own.
Needs FILES × MEGABYTES of disk; Linux only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flames.array_files import LazyArrays, load_arrays, save_arrays
from flames.runs import save_csv
from flames.strategies import weighted_mean

ARRAYS = 24
IN_MEMORY = 8
"""Models of the plain mean; more would not fit beside each other."""


def write(path: Path, megabytes: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(megabytes * 1e6 / 4 / ARRAYS)
    save_arrays(path, {f"a{n}": rng.random(size, np.float32) for n in range(ARRAYS)})


def resident(field: str) -> int:
    """Return resident bytes of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def rate(action: Callable[[], object], size: int) -> float:
    """Return megabytes a second of processor time."""
    started = time.process_time()
    action()
    return size / (time.process_time() - started) / 1e6


def mean_of(models: list[dict[str, np.ndarray]]) -> None:
    for name in models[0]:
        np.mean(np.stack([model[name] for model in models]), axis=0)


def sum_of(models: list[dict[str, np.ndarray]]) -> None:
    for name in models[0]:
        total = np.zeros_like(models[0][name])
        for model in models:
            total += model[name]
        total /= len(models)


def mix(folder: Path, clients: int, files_there: int, out: Path) -> None:
    """Mix in this process and write what it took."""
    files = [folder / f"{number % files_there}.safetensors" for number in range(clients)]
    size = files[0].stat().st_size
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = resident("VmRSS")
    started = time.perf_counter()
    weights = list(range(1, clients + 1))
    mixed = rate(
        lambda: weighted_mean([LazyArrays(path) for path in files], weights), clients * size
    )
    seconds = time.perf_counter() - started
    used = resident("VmHWM") - before
    models = [load_arrays(path) for path in files[:IN_MEMORY]]
    plain = rate(lambda: mean_of(models), len(models) * size)
    in_place = rate(lambda: sum_of(models), len(models) * size)
    out.write_text(
        json.dumps(
            {
                "clients": clients,
                "files": min(clients, files_there),
                "megabytes_a_client": round(size / 1e6, 1),
                "peak_mb": round(used / 1e6, 1),
                "peak_models": round(used / size, 2),
                "wall_seconds": round(seconds, 2),
                "mixed_mb_a_second": round(mixed),
                "numpy_mean_mb_a_second": round(plain),
                "sum_in_place_mb_a_second": round(in_place),
                "against_numpy_mean": round(mixed / plain, 2),
                "against_sum_in_place": round(mixed / in_place, 2),
                "busy_with_others": round(os.getloadavg()[0], 1),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="5,20,40,200")
    parser.add_argument("--megabytes", type=float, default=125.0)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    counts = [int(text) for text in options.clients.split(",")]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = min(options.files, max(counts))
        for number in range(files):
            write(folder / f"{number}.safetensors", options.megabytes, number)
        for count in counts:
            out = folder / f"{count}.json"
            process = multiprocessing.get_context("spawn").Process(
                target=mix, args=(folder, count, files, out)
            )
            process.start()
            process.join()
            rows.append(json.loads(out.read_text(encoding="utf-8")))
    save_csv(options.out, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
