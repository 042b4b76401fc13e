"""Does training ever wait for data, and how much faster is a prepared case than its source?

usage: python benchmarks/loading.py STORE=SOURCE_GLOB... [--out benchmarks/loading.csv]

Times reading source files and prepared images into memory, the fastest of five times, and making
augmented training batches of 8 at 128 pixels, each in this run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from glob import glob
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from flames.data.batches import training_batches
from flames.data.slices import load_slices
from flames.data.store import SiteStore
from flames.runs import save_csv


def read(path: str) -> np.ndarray:
    if path.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.load(path).dataobj)
    with Image.open(path) as picture:
        return np.asarray(picture)


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def fastest(action: Callable[[], object]) -> float:
    return min(seconds(action) for _ in range(5))


def measure(store: SiteStore, sources: str) -> dict[str, object]:
    files = sorted(glob(sources, recursive=True))[:40]  # noqa: PTH207
    cases = store.info.cases[:40]
    source = fastest(lambda: [read(path) for path in files]) / len(files)
    prepared = fastest(lambda: [np.array(store.image(c.case_id)) for c in cases]) / len(cases)
    batches = training_batches(
        [load_slices(store, "train", 128)],
        modality=store.modality,
        batch_size=8,
        tumour_fraction=0.67,
        augmented=True,
        seed=0,
    )
    next(batches)
    batch = seconds(lambda: [next(batches) for _ in range(50)]) / 50
    return {
        "store": store.site,
        "source_ms_a_case": round(source * 1e3, 2),
        "prepared_ms_a_case": round(prepared * 1e3, 3),
        "speed_ratio": round(source / prepared, 1),
        "batch_of_8_ms": round(batch * 1e3, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="STORE=SOURCE_GLOB")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    rows = []
    for pair in options.pairs:
        folder, _, sources = pair.partition("=")
        rows.append(measure(SiteStore.open(Path(folder)), sources))
    save_csv(options.out, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
