"""How fast, and in how much memory, does a model look at a CT volume of 250 x 250 x 60?

usage: python benchmarks/predicting.py MODEL [--threads 2] [--out benchmarks/predicting.csv]

MODEL is one of CT, of two dimensions.

Each way runs in a process of its own, the same network in each: `flames predict` from file to
mask, and MONAI's SliceInferer over the slices, in windows of the network's size at full resolution
(overlap 0.25), and on slices that were fitted into one window before, as FLAMES does.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch

from flames.runs import save_csv

SHAPE = (250, 250, 60)
WAYS = ("flames predict", "monai sliding window", "monai one window")


def write_volume(path: Path) -> Path:
    rng = np.random.default_rng(0)
    volume = rng.normal(30, 40, SHAPE)
    x, y = np.mgrid[: SHAPE[0], : SHAPE[1]]
    volume[np.hypot(x - 125, y - 125) > 110] = -1000
    affine = np.diag([-0.8, -0.8, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), affine), path)
    return path


def run_one(way: str, model: Path, image: Path, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    from monai.inferers import SliceInferer

    from flames.data.inputs import find_inputs
    from flames.data.normalise import normalise
    from flames.data.slices import fit
    from flames.inference.load import load_any
    from flames.inference.predict_files import PredictOptions, predict_files
    from flames.models.precision import choose_precision

    precision = choose_precision("float32")
    trained = load_any(model, precision)
    side = trained.image_size
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), time.process_time()
        if way == "flames predict":
            options = PredictOptions(modality="CT")
            list(
                predict_files(
                    trained,
                    find_inputs([image]),
                    Path(folder) / "out",
                    precision=precision,
                    options=options,
                )
            )
        else:
            volume = normalise(np.asarray(nibabel.load(image).dataobj), (-200, 300))
            slices = np.moveaxis(volume, 2, 0)
            if way == "monai one window":
                slices = fit(slices, side, fill=-1.0)
            tensor = torch.from_numpy(np.moveaxis(slices, 0, 2).copy())[None, None]
            inferer = SliceInferer(
                roi_size=(side, side), sw_batch_size=16, spatial_dim=2, overlap=0.25
            )
            trained.network.eval()
            with torch.inference_mode():
                found = torch.sigmoid(inferer(tensor, trained.network)) > 0.5
            image_out = nibabel.Nifti1Image(found[0, 0].numpy().astype(np.uint8), np.eye(4))
            nibabel.save(image_out, Path(folder) / "mask.nii.gz")
        seconds = time.perf_counter() - started
        cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mib": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--image", type=Path)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(run_one(options.way, options.model, options.image, options.threads)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        image = write_volume(Path(folder) / "ct.nii.gz")
        for way in WAYS:
            tries = []
            for _ in range(options.repeats):
                command = [sys.executable, __file__, str(options.model), "--way", way]
                command += ["--image", str(image), "--threads", str(options.threads)]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                tries.append(json.loads(output.splitlines()[-1]))
            best = min(tries, key=lambda one: one["seconds"])
            slowest = max(one["seconds"] for one in tries)
            rows.append({"way": way, **best, "slowest_of_repeats": slowest})
    save_csv(options.out, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
