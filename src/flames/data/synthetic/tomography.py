"""Made-up CT of an upper abdomen and of kidneys, in Hounsfield units with the noise of photons."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from flames.data.synthetic.fields import (
    Frame,
    Grid,
    Scene,
    blend,
    blob,
    frame,
    inside,
    ridges,
    smooth_noise,
)

AIR, FAT, MUSCLE, BLOOD, BONE, MARROW = -1000.0, -100.0, 58.0, 155.0, 700.0, 220.0
WATER_PER_MM = 0.02
LONG = 400.0
CLOSE = 0.62
"""Field of view of the kidneys, as a share of the whole trunk."""


def liver(rng: np.random.Generator, grid: Grid) -> tuple[Scene, Frame]:
    """Return an upper abdomen: liver with vessels, spleen, stomach, kidneys, aorta, spine."""
    where = frame(grid, rng, bend=1.3)
    half = grid.shape[0] / 2
    level, cavity = _trunk(where, rng, grid)
    blend(level, -95.0 + 12 * smooth_noise(rng, grid, 2), inside(cavity))
    _spine(level, where, half)
    for side in (-1.0, 1.0):
        kidney = blob(
            where, (side * 0.42 * half, -0.34 * half, -8.0), (0.13 * half, 0.17 * half, 14)
        )
        blend(level, 170.0, inside(kidney))
        blend(level, 40.0, inside(kidney + 0.08 * half))
    spleen = blob(
        where, (-0.56 * half, -0.22 * half, 2.0), (0.16 * half, 0.28 * half, 20), turn=0.4
    )
    blend(level, 116.0, inside(np.maximum(spleen, cavity + 1)))
    stomach = blob(where, (-0.36 * half, 0.22 * half, 2.0), (0.27 * half, 0.2 * half, 18))
    blend(level, 62.0, inside(stomach))
    content = np.where(where.y > 0.27 * half, -900.0, rng.uniform(20, 65))
    blend(level, content, inside(stomach + 2.2))
    right = blob(where, (0.36 * half, 0.06 * half, 0.0), (0.46 * half, 0.5 * half, 40), turn=-0.3)
    left = blob(where, (0.0, 0.34 * half, 4.0), (0.42 * half, 0.2 * half, 24), turn=0.15)
    organ = np.maximum(np.minimum(right, left), cavity + 1.5)
    blend(level, rng.uniform(100, 115) + 4 * smooth_noise(rng, grid, 5), inside(organ))
    tree = ridges(smooth_noise(rng, grid, 6), 0.2) * (smooth_noise(rng, grid, 5) > 0)
    blend(level, BLOOD, tree * inside(organ + 4))
    _tube(level, where, (-0.06 * half, -0.16 * half), 0.075 * half, BLOOD + 15)
    _tube(level, where, (0.14 * half, -0.1 * half), 0.085 * half, 128.0)
    return _scene(grid, level, host=organ < -0.13 * half, within=organ < 0), where


def kidney(rng: np.random.Generator, grid: Grid) -> tuple[Scene, Frame]:
    """Return both kidneys in a small field of view: bowel before them, aorta, spine, muscle."""
    half = grid.shape[0] / 2
    far = frame(grid, rng, bend=1.3)
    where = Frame(far.x * CLOSE, far.y * CLOSE - 0.17 * half, far.z * CLOSE)
    level, cavity = _trunk(where, rng, grid)
    blend(level, -95.0 + 12 * smooth_noise(rng, grid, 2), inside(cavity))
    _spine(level, where, half)
    for x in (-0.5, -0.17, 0.17, 0.5):
        at = (x * half, rng.uniform(0.22, 0.34) * half, 0.0)
        bowel = blob(where, at, (0.15 * half, rng.uniform(0.10, 0.15) * half, 20))
        blend(level, 68.0, inside(bowel))
        blend(level, -900.0 if rng.random() < 0.3 else rng.uniform(15, 60), inside(bowel + 1.6))
    organ = np.full(grid.shape, np.inf, np.float32)
    for side in (-1.0, 1.0):
        at = (side * 0.42 * half, rng.uniform(-0.2, -0.12) * half, 0.0)
        radii = (0.21 * half, 0.27 * half, 30)
        organ = np.minimum(organ, blob(where, at, radii, turn=side * 0.35))
    blend(level, rng.uniform(112, 128) + 4 * smooth_noise(rng, grid, 5), inside(organ))
    tree = ridges(smooth_noise(rng, grid, 6), 0.2) * (smooth_noise(rng, grid, 5) > 0)
    blend(level, BLOOD, tree * inside(organ + 2))
    _tube(level, where, (-0.06 * half, -0.2 * half), 0.075 * half, BLOOD + 15)
    _tube(level, where, (0.12 * half, -0.16 * half), 0.085 * half, 128.0)
    return _scene(grid, level, host=organ < -0.08 * half, within=organ < 2), where


def acquire(
    scene: Scene,
    rng: np.random.Generator,
    *,
    pixel_mm: float,
    noise: float,
    blur: float,
    offset: float,
) -> np.ndarray:
    """Return Hounsfield units, int16, with ``offset`` HU of bad calibration.

    Photons that cross ``L`` mm of water arrive in number ``∝ exp(-0.02·L)``, so the variance of
    the noise grows as ``exp(0.02·L)``: here with the mean over the two axes of the plane. Filtered
    back-projection leaves little noise at low frequency, which the ramp filter reproduces.

    Args:
        scene: Hounsfield units.
        rng: Source of the noise.
        pixel_mm: Size of a pixel.
        noise: Deviation in HU behind 200 mm of water.
        blur: Deviation of the kernel, in pixels.
        offset: Added to all values.
    """
    sharp = np.clip(scene.level, AIR, 1500)
    image = gaussian_filter1d(gaussian_filter1d(sharp, blur, axis=0), blur, axis=1)
    water = pixel_mm * (image / 1000 + 1)
    variance = 0.5 * sum(
        np.exp(WATER_PER_MM * (water.sum(axis=axis, keepdims=True) - 200)) for axis in (0, 1)
    )
    rows = np.fft.fftfreq(scene.grid.shape[0])[:, None, None]
    columns = np.fft.fftfreq(scene.grid.shape[1])[None, :, None]
    radius = np.hypot(rows, columns)
    ramp = radius * np.exp(-2 * (np.pi * 0.5 * radius) ** 2)
    grain = np.fft.fftn(rng.standard_normal(image.shape), axes=(0, 1)) * ramp
    grain = np.fft.ifftn(grain, axes=(0, 1)).real
    image = image + noise * np.sqrt(variance) * grain / grain.std()
    return np.rint(np.clip(image + offset, -1024, 3071)).astype(np.int16)


def _trunk(where: Frame, rng: np.random.Generator, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    half = grid.shape[0] / 2
    wide, deep = rng.uniform(0.90, 0.95) * half, rng.uniform(0.70, 0.78) * half
    skin = blob(where, (0.0, 0.0, 0.0), (wide, deep, LONG))
    fat = rng.uniform(3, 6)
    cavity = skin + fat + 5.5
    level = np.full(grid.shape, AIR, np.float32)
    blend(level, FAT, inside(skin))
    blend(level, MUSCLE + 6 * smooth_noise(rng, grid, 2), inside(skin + fat))
    angle = np.arctan2(where.y / deep, where.x / wide)
    ribs = np.cos(9 * angle + 0.15 * where.z + rng.uniform(0, 6)) > 0.45
    shell = ribs * inside(np.abs(cavity - 2.5) - 1.4, 0.4)
    blend(level, BONE, shell)
    return level, cavity


def _spine(level: np.ndarray, where: Frame, half: float) -> None:
    body = blob(where, (0.0, -0.42 * half, 0.0), (0.15 * half, 0.12 * half, LONG))
    arch = blob(where, (0.0, -0.56 * half, 0.0), (0.10 * half, 0.085 * half, LONG))
    process = blob(where, (0.0, -0.68 * half, 0.0), (0.03 * half, 0.09 * half, LONG))
    wings = blob(where, (0.0, -0.55 * half, 0.0), (0.22 * half, 0.03 * half, LONG))
    blend(level, BONE - 200, inside(np.minimum(np.minimum(body, arch), np.minimum(process, wings))))
    blend(level, MARROW, inside(body + 2))
    blend(level, 35.0, inside(arch + 2))


def _tube(
    level: np.ndarray, where: Frame, at: tuple[float, float], radius: float, value: float
) -> None:
    blend(level, value, inside(blob(where, (*at, 0.0), (radius, radius, LONG)), 0.5))


def _scene(grid: Grid, level: np.ndarray, host: np.ndarray, within: np.ndarray) -> Scene:
    return Scene(grid, level, host, within, np.zeros(grid.shape, np.float32))
