"""Prepared cases a second, against MONAI's PersistentDataset, both with the same processes.

usage: python benchmarks/preparing.py FOLDER MODALITY [--workers 2] [--out benchmarks/preparing.csv]

FOLDER holds imagesTr and labelsTr. Both read image and label, turn them to RAS and leave a file
that training loads: FLAMES the checked arrays, their window and digests; MONAI's dataset the
normalised tensors, filled by a DataLoader. Then image and label of every case are read into memory
from the source, the store and MONAI's cache, the fastest of five times each.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
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

REPEATS = 5
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


def processor_seconds() -> float:
    """Return what this process and the children that it waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def read_source(files: Sequence[dict[str, Path]]) -> None:
    for one in files:
        for path in one.values():
            np.asarray(nibabel.load(path).dataobj)


def read_prepared(store: SiteStore) -> None:
    for case in store.info.cases:
        np.array(store.image(case.case_id))
        np.array(store.label(case.case_id))


def read_tensors(data: PersistentDataset) -> None:
    for index in range(len(data)):
        data[index]


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
        cpu = [processor_seconds()]
        ours = seconds(lambda: add_store(options.folder, dest, request, workers=options.workers))
        cpu.append(processor_seconds())
        data = PersistentDataset(files, chain(options.modality), cache_dir=cache)
        loader = DataLoader(data, batch_size=1, num_workers=options.workers)
        theirs = seconds(lambda: [None for _ in loader])
        cpu.append(processor_seconds())
        store = SiteStore.open(dest)
        source = min(seconds(lambda: read_source(files)) for _ in range(REPEATS))
        again = min(seconds(lambda: read_prepared(store)) for _ in range(REPEATS))
        tensors = min(seconds(lambda: read_tensors(data)) for _ in range(REPEATS))
    count = len(files)
    row = {
        "folder": options.folder.name,
        "cases": count,
        "workers": options.workers,
        "flames_prepared_a_second": round(count / ours, 2),
        "monai_prepared_a_second": round(count / theirs, 2),
        "flames_processor_ms_a_case": round((cpu[1] - cpu[0]) / count * 1e3, 1),
        "monai_processor_ms_a_case": round((cpu[2] - cpu[1]) / count * 1e3, 1),
        "source_ms_a_case": round(source / count * 1e3, 1),
        "flames_load_ms_a_case": round(again / count * 1e3, 2),
        "monai_load_ms_a_case": round(tensors / count * 1e3, 2),
        "source_over_flames_load": round(source / again, 1),
    }
    save_csv(options.out, [row])
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
