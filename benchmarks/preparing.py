"""Prepared cases a second, against MONAI's PersistentDataset, both with the same processes.

usage: python benchmarks/preparing.py FOLDER MODALITY [--workers 2] [--out benchmarks/preparing.csv]

FOLDER holds imagesTr and labelsTr. Both read image and label, turn them to RAS and leave a file
that training loads: FLAMES the checked arrays, their window and digests; MONAI's dataset the
normalised tensors, filled by a DataLoader. Then both load each case once more.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from monai.data import DataLoader, PersistentDataset
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
)

from flames.data.prepare import StoreRequest, add_store
from flames.data.store import SiteStore
from flames.runs import save_csv

KEYS = ("image", "label")


def chain(modality: str) -> Compose:
    scale = (
        ScaleIntensityRanged("image", -200, 300, -1, 1, clip=True)
        if modality == "CT"
        else ScaleIntensityRangePercentilesd("image", 1, 99.5, -1, 1, clip=True)
    )
    return Compose(
        [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            Orientationd(KEYS, axcodes="RAS", labels=None),
            scale,
            AsDiscreted("label", threshold=0.5),
        ]
    )


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def load_prepared(store: SiteStore) -> int:
    return sum(
        int(array(c.case_id).sum(dtype=np.int64))
        for c in store.info.cases
        for array in (store.image, store.label)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("modality", choices=["CT", "MR"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    images = sorted((options.folder / "imagesTr").glob("*.nii.gz"))
    files = [{"image": p, "label": options.folder / "labelsTr" / p.name} for p in images]
    request = StoreRequest("msd", "s", options.modality, "organ")
    with tempfile.TemporaryDirectory() as folder:
        dest, cache = Path(folder) / "store", Path(folder) / "cache"
        ours = seconds(lambda: add_store(options.folder, dest, request, workers=options.workers))
        store = SiteStore.open(dest)
        data = PersistentDataset(files, chain(options.modality), cache_dir=cache)
        loader = DataLoader(data, batch_size=1, num_workers=options.workers)
        theirs = seconds(lambda: [None for _ in loader])
        source = seconds(
            lambda: [np.asarray(nibabel.load(p).dataobj).sum(dtype=np.int64)
                     for one in files for p in one.values()]
        )  # fmt: skip
        again = seconds(lambda: load_prepared(store))
        tensors = seconds(lambda: [one["image"].sum() + one["label"].sum() for one in data])
    count = len(files)
    row = {
        "folder": options.folder.name,
        "cases": count,
        "workers": options.workers,
        "flames_prepared_a_second": round(count / ours, 2),
        "monai_prepared_a_second": round(count / theirs, 2),
        "source_ms_a_case": round(source / count * 1e3, 1),
        "flames_load_ms_a_case": round(again / count * 1e3, 2),
        "monai_load_ms_a_case": round(tensors / count * 1e3, 2),
        "source_over_flames_load": round(source / again, 1),
    }
    save_csv(options.out, [row])
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
