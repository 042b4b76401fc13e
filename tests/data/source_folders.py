"""Writers of the small files that the tests here put into source folders."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def speckle(seed: int, size: tuple[int, ...] = (40, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def square(size: tuple[int, int] = (40, 48), start: int = 8, side: int = 10) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[start : start + side, start : start + side] = 255
    return mask


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(array, np.diag([2.0, 2.0, 5.0, 1]) if affine is None else affine), path
    )
    return path
