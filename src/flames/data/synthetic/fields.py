"""Smooth noise, blobs and blending: what every made-up anatomy is drawn with.

Everything is drawn on three axes, ``(X, Y, Z)``; an ultrasound image has one slice. Lengths are in
pixels of the image plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfftn, rfftn
from scipy.special import expit

OUTLINE_STEPS = 1024
"""Directions in which the outline of a blob is worked out."""


@dataclass(frozen=True)
class Grid:
    """The lattice of one image: its shape, and how far apart slices are in pixels."""

    shape: tuple[int, int, int]
    slice_gap: float = 1.0
    """Distance between slices, in pixels of the plane."""


@dataclass(frozen=True)
class Frame:
    """Coordinates of every voxel from the centre of the image, bent where the body is."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


@dataclass
class Scene:
    """What is in the body before any machine looks at it."""

    grid: Grid
    level: np.ndarray
    """Echo in dB (US), signal (MR) or Hounsfield units (CT)."""
    host: np.ndarray
    """Where the centre of a lesion may lie."""
    within: np.ndarray
    """Where tissue may turn into lesion."""
    loss: np.ndarray
    """Extra attenuation in dB a pixel of path: a shadow below, or less than 0, enhancement (US)."""


def smooth_noise(rng: np.random.Generator, grid: Grid, grain: float) -> np.ndarray:
    """Return Gaussian noise of mean 0 and deviation 1 whose detail is about ``grain`` pixels.

    White noise is filtered with a Gaussian in the Fourier domain, so that coarse noise costs no
    more than fine noise. Opposite borders continue each other.
    """
    white = rfftn(rng.standard_normal(grid.shape, dtype=np.float32))
    steps = (1.0, 1.0, grid.slice_gap)
    squares = [
        (np.fft.fftfreq(n, step) if axis < 2 else np.fft.rfftfreq(n, step)).astype(np.float32) ** 2
        for axis, (n, step) in enumerate(zip(grid.shape, steps, strict=True))
    ]
    radius2 = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
    noise = irfftn(
        white * np.exp(-2 * (np.pi * grain) ** 2 * radius2), s=grid.shape, axes=(0, 1, 2)
    )
    noise -= noise.mean()
    return noise / max(float(noise.std()), 1e-6)


def frame(grid: Grid, rng: np.random.Generator, bend: float = 0.0) -> Frame:
    """Return coordinates from the image's centre, displaced smoothly by about ``bend`` pixels."""
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in grid.shape]
    axes[2] = axes[2] * grid.slice_gap
    x, y, z = np.meshgrid(*axes, indexing="ij")
    if bend:
        x = x + bend * smooth_noise(rng, grid, 16)
        y = y + bend * smooth_noise(rng, grid, 16)
    return Frame(x, y, z)


def blob(
    where: Frame,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    *,
    turn: float = 0.0,
    lobes: tuple[float, ...] = (),
    phases: tuple[float, ...] = (),
) -> np.ndarray:
    """Return about the distance to the border of an ellipsoid, in pixels, below 0 inside.

    The radius in the plane is multiplied by ``1 + Σ_k lobes[k]·cos((k+2)·θ + phases[k])``.
    """
    dx, dy = where.x - centre[0], where.y - centre[1]
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    u, v = (cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1]
    edge: np.ndarray = np.ones_like(u)
    if lobes:
        turns = np.linspace(-np.pi, np.pi, OUTLINE_STEPS + 1)
        outline = np.ones_like(turns)
        for order, (size, phase) in enumerate(zip(lobes, phases, strict=True), start=2):
            outline += size * np.cos(order * turns + phase)
        step = (np.arctan2(v, u) + np.pi) * (OUTLINE_STEPS / (2 * np.pi))
        edge = outline.astype(np.float32)[np.rint(step).astype(np.intp)]
    height = np.abs(where.z - centre[2]) / radii[2]
    edge *= np.sqrt(np.clip(1 - height**2, 0, None))
    beyond = np.clip(height - 1, 0, None) * radii[2]
    return (np.hypot(u, v) - edge) * float(radii[0] * radii[1]) ** 0.5 + beyond


def inside(distance: np.ndarray, softness: float = 0.7) -> np.ndarray:
    """Return 1 inside a border, 0 outside, and a smooth step ``softness`` pixels wide between."""
    return expit(np.clip(-distance / softness, -30, 30))


def blend(level: np.ndarray, value: np.ndarray | float, weight: np.ndarray) -> None:
    """Move ``level`` towards ``value`` in place, all the way where ``weight`` is 1."""
    level += weight * (value - level)


def ridges(noise: np.ndarray, width: float) -> np.ndarray:
    """Return thin curved lines, 1 on the zero crossings of ``noise``: septa, folds and vessels."""
    return np.exp(-0.5 * (noise / width) ** 2)
