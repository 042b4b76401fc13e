"""Tiny source folders, laid out as the real ones are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

# Test modules are imported one by one, without their folder: their shared writers need it.
sys.path.insert(0, str(Path(__file__).parent))

from source_folders import save, save_nifti, speckle, square


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    root = tmp_path / "busi"
    inner = root / "Dataset_BUSI_with_GT"
    for i in range(1, 5):
        for k, kind in enumerate(("benign", "malignant", "normal")):
            save(inner / kind / f"{kind} ({i}).png", speckle(10 * i + k))
            mask = square() if kind != "normal" else np.zeros((40, 48), np.uint8)
            save(inner / kind / f"{kind} ({i})_mask.png", mask)
    save(inner / "benign" / "benign (1)_mask_1.png", square(start=25, side=4))
    return root


@pytest.fixture
def msd(tmp_path: Path) -> Path:
    root = tmp_path / "msd"
    for i, name in enumerate(("TCGA_CS_1", "TCGA_CS_2", "TCGA_CS_3", "TCGA_DU_1")):
        volume = np.random.default_rng(i).integers(0, 900, (12, 10, 6), dtype=np.int16)
        label = np.zeros((12, 10, 6), np.uint8)
        label[2:5, 3:6, 1:3] = 1 + i % 2
        save_nifti(root / "imagesTr" / f"{name}.nii.gz", volume)
        save_nifti(root / "labelsTr" / f"{name}.nii.gz", label)
    return root


@pytest.fixture
def kaggle3m(tmp_path: Path) -> Path:
    root = tmp_path / "lgg"
    for p in range(3):
        patient = f"TCGA_CS_{p}_19970222"
        for n in range(1, 12):
            image = np.full((8, 9, 3), 0, np.uint8)
            image[..., 0], image[..., 1], image[..., 2] = 200, n, 100
            image[0, 8, 1] = 50 + n
            folder = root / "kaggle_3m" / patient
            save(folder / f"{patient}_{n}.tif", image)
            mask = square((8, 9), 2, 3) if n == 4 else np.zeros((8, 9), np.uint8)
            save(folder / f"{patient}_{n}_mask.tif", mask)
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("FLAMES_REAL_DATA", root.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip(f"no real cases at {folder}: set FLAMES_REAL_DATA to the folder that has them")
    return folder
