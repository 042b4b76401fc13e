"""Made-up MR: a head and a thigh, T2-like, through a smooth coil profile and a finite k-space."""

from __future__ import annotations

import numpy as np

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

FLUID, FAT, GREY, WHITE, MUSCLE, BONE = 1.0, 0.80, 0.62, 0.38, 0.28, 0.05


def brain(rng: np.random.Generator, grid: Grid) -> tuple[Scene, Frame]:
    """Return scalp, skull, fluid, folded cortex, white matter and ventricles, as signal."""
    where = frame(grid, rng, bend=1.2)
    half = grid.shape[0] / 2
    long, wide = rng.uniform(0.82, 0.90) * half, rng.uniform(0.68, 0.76) * half
    tall = 4.5 * long / 2
    head = blob(where, (0.0, 0.0, 0.0), (wide, long, tall))
    level = np.zeros(grid.shape, np.float32)
    blend(level, FAT, inside(head))
    blend(level, BONE, inside(head + 3))
    blend(level, FLUID, inside(head + 5.5))
    folds = smooth_noise(rng, grid, 3.2)
    cortex = head + 7.0 + 1.2 * folds
    blend(level, GREY + 0.03 * smooth_noise(rng, grid, 3), inside(cortex))
    white = cortex + 4.5 + 2.6 * smooth_noise(rng, grid, 3.0)
    blend(level, WHITE + 0.03 * smooth_noise(rng, grid, 6), inside(white, 0.9))
    cleft = ridges(where.x + smooth_noise(rng, grid, 9), 0.7) * (np.abs(where.y) > 0.3 * long)
    blend(level, FLUID, cleft * inside(cortex - 2))
    for side in (-1.0, 1.0):
        _deep_grey(level, where, side, half)
        _ventricle(level, where, rng, side, half)
    sulci = ridges(smooth_noise(rng, grid, 4.5), 0.16) * inside(np.abs(cortex + 1) - 3.5)
    blend(level, FLUID, 0.8 * sulci)
    return _scene(grid, level, host=head < -0.34 * wide, within=cortex < 0), where


def limb(rng: np.random.Generator, grid: Grid) -> tuple[Scene, Frame]:
    """Return skin, fat, muscle bundles, bone with marrow and vessels of a thigh, as signal."""
    where = frame(grid, rng, bend=1.8)
    half = grid.shape[0] / 2
    size = rng.uniform(0.80, 0.90) * half
    skin = blob(where, (0.0, 0.0, 0.0), (size, size * rng.uniform(0.85, 1.0), 400.0))
    fascia = skin + rng.uniform(5, 10)
    level = np.zeros(grid.shape, np.float32)
    blend(level, 0.35, inside(skin))
    blend(level, FAT + 0.03 * smooth_noise(rng, grid, 4), inside(skin + 1.5))
    long_grid = Grid(grid.shape, grid.slice_gap / 4)
    muscle = MUSCLE + 0.035 * smooth_noise(rng, long_grid, 1.5)
    muscle += 0.40 * ridges(smooth_noise(rng, long_grid, 10), 0.06)
    blend(level, muscle, inside(fascia))
    centre = (rng.uniform(-0.15, 0.15) * half, rng.uniform(-0.05, 0.25) * half, 0.0)
    bone = blob(where, centre, (0.19 * half, 0.19 * half, 400.0))
    blend(level, BONE, inside(bone))
    blend(level, FAT, inside(bone + 2.8))
    for _ in range(rng.integers(3, 6)):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.62) * size
        at = (far * np.cos(angle), far * np.sin(angle), 0.0)
        radius = rng.uniform(1.3, 2.8)
        vessel = inside(blob(where, at, (radius, radius, 400.0)), 0.5)
        blend(level, float(rng.choice([0.05, 1.0])), vessel)
    host = (fascia < -0.22 * half) & (bone > 0.12 * half)
    return _scene(grid, level, host=host, within=(skin < -2) & (bone > 0)), where


def acquire(
    scene: Scene,
    rng: np.random.Generator,
    *,
    gain: float,
    gamma: float,
    bias: float,
    noise: float,
    kept: float,
) -> np.ndarray:
    """Return the magnitude image, uint16: ``|F⁻¹(mask·F(bias·signal)) + n₁ + i·n₂|``.

    The magnitude of complex Gaussian noise is Rician: in air its mean is ``noise·√(π/2)``, not 0.

    Args:
        scene: Signal, about 1 in fluid.
        rng: Source of the coil profile and the noise.
        gain: Grey value of signal 1.
        gamma: Contrast of the sequence: an exponent on the signal.
        bias: Deviation of the logarithm of the coil profile.
        noise: Deviation of each of the two noise channels, as signal.
        kept: Share of the k-space radius that is sampled: less is blurred, and rings at edges.
    """
    profile = np.exp(bias * smooth_noise(rng, scene.grid, 0.3 * scene.grid.shape[0]))
    signal = np.clip(scene.level, 0, None) ** gamma * profile
    rows = np.fft.fftfreq(scene.grid.shape[0])[:, None, None]
    columns = np.fft.fftfreq(scene.grid.shape[1])[None, :, None]
    sampled = np.clip((0.5 * kept - np.hypot(rows, columns)) / 0.06 + 0.5, 0, 1)
    seen = np.fft.ifftn(np.fft.fftn(signal, axes=(0, 1)) * sampled, axes=(0, 1))
    seen += noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return np.rint(np.clip(gain * np.abs(seen), 0, 65535)).astype(np.uint16)


def _deep_grey(level: np.ndarray, where: Frame, side: float, half: float) -> None:
    nucleus = blob(where, (side * 0.22 * half, 0.05 * half, -4.0), (0.10 * half, 0.2 * half, 12.0))
    blend(level, GREY, inside(nucleus, 1.2))


def _ventricle(
    level: np.ndarray, where: Frame, rng: np.random.Generator, side: float, half: float
) -> None:
    wide = rng.uniform(0.05, 0.09) * half
    for along, turn in ((0.18, -0.35), (-0.2, 0.35)):
        at = (side * 0.13 * half, along * half, 1.0)
        horn = blob(where, at, (wide, 0.24 * half, 14.0), turn=side * turn)
        blend(level, FLUID, inside(horn, 0.6))


def _scene(grid: Grid, level: np.ndarray, host: np.ndarray, within: np.ndarray) -> Scene:
    return Scene(grid, level, host, within, np.zeros(grid.shape, np.float32))
