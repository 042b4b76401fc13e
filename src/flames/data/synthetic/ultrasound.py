"""Made-up ultrasound: a breast under a linear probe, an ovary under a curved one.

Depth is the first axis. Scatterers of random phase are seen through the probe's point spread
function, which gives speckle; what lies below an attenuating lesion is darker, below a cyst
brighter.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

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

AXIAL = 0.75
NOISE_FLOOR_DB = -46.0


def breast(rng: np.random.Generator, grid: Grid) -> tuple[Scene, Frame]:
    """Return skin, fat with ligaments, gland, muscle and chest wall, in dB around gland."""
    where = frame(grid, rng, bend=3.0)
    depth = where.x / grid.shape[0] + 0.5
    fat_ends, gland_ends = rng.uniform(0.20, 0.30), rng.uniform(0.68, 0.80)
    level = -12 + 1.5 * smooth_noise(rng, grid, 3)
    level += 11 * ridges(smooth_noise(rng, grid, 9), 0.07)
    gland = 3 * smooth_noise(rng, grid, 2.5) + 2 * smooth_noise(rng, grid, 8)
    lobules = inside((rng.uniform(1.0, 1.3) - smooth_noise(rng, grid, 7)) * 8)
    blend(gland, -13.0, lobules)
    size = grid.shape[0]
    blend(level, gland, inside((fat_ends - depth) * size, 1.2))
    fibres = Grid(grid.shape)
    muscle = -10 + 4 * np.sin(where.x * 1.5 + 2.5 * smooth_noise(rng, fibres, 7))
    blend(level, muscle, inside((gland_ends - depth) * size, 0.8))
    for border in (fat_ends, gland_ends):
        level += 8 * ridges((depth - border) * size, 0.9)
    wall = gland_ends + rng.uniform(0.12, 0.17)
    level += 16 * ridges((depth - wall) * size, 1.0)
    blend(level, -22.0, inside((wall + 0.02 - depth) * size, 1.5))
    blend(level, 5.0, inside((depth - 0.045) * size, 0.7))
    central = np.abs(where.y) < 0.40 * grid.shape[1]
    return _scene(
        grid, level, (depth > fat_ends - 0.02) & (depth < gland_ends - 0.08) & central
    ), where


def ovary(rng: np.random.Generator, grid: Grid) -> tuple[Scene, Frame]:
    """Return bladder, uterus, ovary with follicles, vessel and bowel, in dB around pelvic fat."""
    where = frame(grid, rng, bend=3.0)
    height, width, _ = grid.shape
    side = float(rng.choice([-1.0, 1.0]))
    level = -3 + 3 * smooth_noise(rng, grid, 5) + 7 * ridges(smooth_noise(rng, grid, 12), 0.06)
    scene = _scene(grid, level, np.abs(where.x - 0.12 * height) < 0.24 * height)
    scene.host &= np.abs(where.y) < 0.30 * width
    uterus = (0.02 * height, -side * 0.25 * width, 0.0)
    turn = rng.uniform(-0.4, 0.4)
    blend(
        level,
        -10 + 2 * smooth_noise(rng, grid, 3),
        inside(blob(where, uterus, (0.15 * height, 0.22 * width, 9.0), turn=turn)),
    )
    stripe = inside(blob(where, uterus, (0.025 * height, 0.13 * width, 9.0), turn=turn))
    blend(level, 4.0, stripe)
    _ovary_with_follicles(scene, where, rng, (0.12 * height, side * 0.15 * width))
    bladder = blob(
        where,
        (-0.36 * height, rng.uniform(-0.12, 0.12) * width, 0.0),
        (rng.uniform(0.07, 0.13) * height, rng.uniform(0.15, 0.28) * width, 9.0),
    )
    level += 8 * ridges(bladder, 0.9)
    blend(level, -45.0, inside(bladder, 0.6))
    scene.loss[bladder < 0] = -0.12
    for _ in range(rng.integers(1, 3)):
        _bowel(scene, where, rng)
    scene.host &= bladder > 10
    return scene, where


def acquire(
    scene: Scene,
    rng: np.random.Generator,
    *,
    curved: bool,
    gain: float,
    dynamic_range: float,
    lateral: float,
    compound: int,
) -> np.ndarray:
    """Return the log-compressed image, uint8, black outside the field of view.

    The envelope of each of ``compound`` looks is ``|PSF ∗ (10^(echo/20) · n)|`` with ``n`` complex
    Gaussian: its amplitude is Rayleigh where the tissue is even. Attenuation adds along the beam.

    Args:
        scene: Echo and attenuation, with one slice.
        rng: Source of the speckle.
        curved: Whether beams fan out from a curved probe.
        gain: dB that tissue at 0 dB is shown below white, as a negative number.
        dynamic_range: dB between black and white.
        lateral: Width of the beam, in beams.
        compound: Looks averaged, which calms the speckle.
    """
    shape = (scene.grid.shape[0], scene.grid.shape[1])
    to_beams, to_image, seen = _geometry(shape, curved)
    echo = map_coordinates(scene.level[..., 0], to_beams, order=1, mode="nearest")
    loss = map_coordinates(scene.loss[..., 0], to_beams, order=1, mode="nearest")
    echo -= gaussian_filter1d(np.cumsum(loss, axis=0) - loss, 1.5, axis=1)
    amplitude = 10 ** (echo / 20)
    power = np.zeros_like(echo)
    for _ in range(compound):
        scatter = rng.standard_normal((2, *echo.shape)) * amplitude
        field = gaussian_filter1d(gaussian_filter1d(scatter, AXIAL, axis=1), lateral, axis=2)
        power += (field**2).sum(axis=0) / (2 * compound)
    power *= 4 * np.pi * AXIAL * lateral
    floor = 10 ** (NOISE_FLOOR_DB / 10) * np.linspace(0.3, 4, len(power))[:, None] ** 2
    decibel = 10 * np.log10(power + floor * rng.exponential(size=power.shape))
    shown = map_coordinates(decibel, to_image, order=1, mode="nearest")
    grey = 255 * np.clip((shown + gain) / dynamic_range + 1, 0, 1) * seen
    return np.rint(grey).astype(np.uint8)


def field_of_view(shape: tuple[int, int], *, curved: bool) -> np.ndarray:
    """Return True where the probe sees: all of the image, or the fan of a curved probe."""
    return _geometry(shape, curved)[2]


def _geometry(shape: tuple[int, int], curved: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = shape
    rows, columns = np.indices(shape, dtype=float)
    if not curved:
        same = np.stack([rows, columns])
        return same, same, np.ones(shape, bool)
    apex, first, half = -0.32 * height, 0.36 * height, np.deg2rad(38)
    middle = (width - 1) / 2
    pitch = 2 * half / (width - 1)
    radius, angle = first + rows * (0.98 * height - apex - first) / height, columns * pitch - half
    to_beams = np.stack([apex + radius * np.cos(angle), middle + radius * np.sin(angle)])
    dx, dy = rows - apex, columns - middle
    sample = (np.hypot(dx, dy) - first) * height / (0.98 * height - apex - first)
    beam = (np.arctan2(dy, dx) + half) / pitch
    seen = (sample >= 0) & (sample <= height - 1) & (beam >= 0) & (beam <= width - 1)
    return to_beams, np.stack([sample, beam]), seen


def _ovary_with_follicles(
    scene: Scene, where: Frame, rng: np.random.Generator, at: tuple[float, float]
) -> None:
    size = 0.14 * scene.grid.shape[0]
    border = blob(where, (*at, 0.0), (size, 1.3 * size, 9.0), turn=rng.uniform(-0.5, 0.5))
    blend(scene.level, -7 + 2 * smooth_noise(rng, scene.grid, 2.5), inside(border))
    for _ in range(rng.integers(2, 6)):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.8) * size
        centre = (at[0] + far * np.cos(angle), at[1] + 1.2 * far * np.sin(angle), 0.0)
        radius = rng.uniform(1.8, 4.5)
        follicle = blob(where, centre, (radius, radius, 9.0))
        blend(scene.level, -40.0, inside(follicle, 0.5))
        scene.loss[follicle < 0] = -0.3


def _bowel(scene: Scene, where: Frame, rng: np.random.Generator) -> None:
    height, width, _ = scene.grid.shape
    centre = (
        rng.uniform(0.15, 0.35) * height,
        rng.choice([-1, 1]) * rng.uniform(0.3, 0.42) * width,
    )
    loop = blob(where, (*centre, 0.0), (0.07 * height, 0.10 * width, 9.0))
    crest = ridges(loop, 1.2) * (where.x < centre[0])
    scene.level += 17 * crest
    scene.loss[crest > 0.5] = 3.0


def _scene(grid: Grid, level: np.ndarray, host: np.ndarray) -> Scene:
    return Scene(grid, level, host, np.ones(grid.shape, bool), np.zeros(grid.shape, np.float32))
