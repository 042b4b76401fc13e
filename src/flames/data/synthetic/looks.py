"""What tumours and the things mistaken for them look like, one table a modality.

A tumour looks the same in both organs of a modality: that is what its hospitals can teach each
other. Between modalities the cues contradict: a tumour is dark in ultrasound and bright in MR, and
the bright mottled lump that is a tumour in MR is a harmless one in ultrasound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flames.data.store import Modality
from flames.data.synthetic.fields import Frame, Scene, blend, blob, inside, smooth_noise


@dataclass(frozen=True)
class Look:
    """One way a lesion may look. Levels are in the unit of the modality: dB, signal or HU."""

    level: float
    texture: float = 0.0
    """Deviation of the mottle."""
    grain: float = 1.6
    """Size of the mottle, in pixels."""
    rim: float = 0.0
    """Added along the inside of the border."""
    core: float | None = None
    """Level of the liquid or dead centre."""
    softness: float = 0.8
    """Width of the border, in pixels."""
    lobes: float = 0.0
    """Size of broad bulges, as a share of the radius."""
    spikes: float = 0.0
    """Size of fine spicules, as a share of the radius."""
    loss: float = 0.0
    """Attenuation in dB a pixel (US)."""
    size: float = 1.0
    """Factor on the radius."""


TUMOURS: dict[Modality, dict[str, Look]] = {
    "US": {
        "solid": Look(-15, texture=3.5, softness=1.2, lobes=0.10, spikes=0.07, loss=0.45),
        "cystic": Look(-9, texture=3.5, core=-38, lobes=0.16, loss=-0.10, softness=1.0),
        "halo": Look(-4, texture=5.0, grain=2.2, rim=-14, lobes=0.12, loss=0.10),
    },
    "MR": {
        "bright": Look(0.88, texture=0.15, lobes=0.16, softness=1.0),
        "ring": Look(0.70, texture=0.08, rim=0.34, core=0.32, lobes=0.14),
        "infiltrating": Look(0.70, texture=0.15, grain=2.0, softness=2.0, lobes=0.12, spikes=0.07),
    },
    "CT": {
        "lobulated": Look(52, texture=20, lobes=0.16, softness=1.1),
        "necrotic": Look(66, texture=10, rim=42, core=22, lobes=0.12, softness=1.0),
        "spiculated": Look(78, texture=24, grain=2.0, softness=1.4, lobes=0.08, spikes=0.09),
    },
}
"""Tumours by modality and name."""

DECOYS: dict[Modality, dict[str, Look]] = {
    "US": {
        "cyst": Look(-42, loss=-0.40, softness=0.6, size=0.8),
        "lump": Look(6, texture=3.5, lobes=0.12, size=0.8),
        "lobule": Look(-14, softness=1.0, size=0.8),
        "calcification": Look(14, softness=0.6, loss=2.2, size=0.22),
    },
    "MR": {
        "cyst": Look(1.02, softness=0.7, size=0.7),
        "old-blood": Look(0.14, texture=0.05, lobes=0.14, size=0.7),
        "swelling": Look(0.74, softness=2.6, size=0.8),
    },
    "CT": {
        "cyst": Look(8, softness=0.7, size=0.7),
        "blood-pool": Look(150, texture=18, lobes=0.14, size=0.7),
        "collapse": Look(58, softness=1.8, size=0.9),
    },
}
"""Harmless things by modality and name; none is in a label."""

RIM_WIDTH = 1.5


@dataclass(frozen=True)
class Spot:
    """Where a lesion lies and how large it is, in pixels."""

    centre: tuple[float, float, float]
    radius: float


def place(
    scene: Scene, where: Frame, rng: np.random.Generator, radius: float, taken: list[Spot]
) -> Spot | None:
    """Return a free place in the host tissue, clear of the lesions already there, or None."""
    candidates = np.argwhere(scene.host)
    for index in rng.permutation(len(candidates))[:60]:
        at = tuple(candidates[index])
        spot = Spot((float(where.x[at]), float(where.y[at]), float(where.z[at])), radius)
        if all(_gap(spot, other) > 2 for other in taken):
            return spot
    return None


def paint(
    scene: Scene, where: Frame, rng: np.random.Generator, spot: Spot, look: Look
) -> np.ndarray:
    """Draw one lesion into the scene and return where it is."""
    stretch = rng.uniform(0.8, 1.25)
    radii = (spot.radius * stretch, spot.radius / stretch, spot.radius * rng.uniform(0.8, 1.0))
    lobes, phases = _outline(look, rng)
    distance = blob(
        where, spot.centre, radii, turn=rng.uniform(0, np.pi), lobes=lobes, phases=phases
    )
    body = np.full(scene.grid.shape, look.level, np.float32)
    if look.core is not None:
        depth = 0.32 * spot.radius * (1 + 0.35 * smooth_noise(rng, scene.grid, 3))
        blend(body, look.core, inside(distance + depth, 0.8))
    if look.texture:
        body += look.texture * smooth_noise(rng, scene.grid, look.grain)
    body += look.rim * np.exp(-0.5 * ((distance + RIM_WIDTH) / RIM_WIDTH) ** 2)
    blend(scene.level, body, inside(distance, look.softness) * scene.within)
    scene.loss[(distance < 0) & scene.within] = look.loss
    return (distance < 0) & scene.within


def _outline(look: Look, rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[float, ...]]:
    sizes = [look.lobes * rng.uniform(0.2, 1.0) * fade for fade in (1.0, 0.8, 0.5, 0.4)]
    sizes += [look.spikes * rng.uniform(0.0, 1.0) for _ in range(9)]
    phases = rng.uniform(0, 2 * np.pi, len(sizes)).tolist()
    return tuple(sizes), tuple(phases)


def _gap(one: Spot, other: Spot) -> float:
    apart = np.linalg.norm(np.subtract(one.centre, other.centre))
    return float(apart) - 1.25 * (one.radius + other.radius)
