"""Six made-up hospitals: what each images, with which machine, and which tumours it mostly sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from flames.data.store import Modality
from flames.data.synthetic import magnetic, tomography, ultrasound
from flames.data.synthetic.fields import Frame, Grid, Scene
from flames.data.synthetic.looks import DECOYS, TUMOURS, Spot, paint, place
from flames.errors import FlamesError, nearest


@dataclass(frozen=True)
class Hospital:
    """One hospital: anatomy, machine and the tumours of its training cases."""

    modality: Modality
    organ: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    """Millimetres; a pixel is square."""
    anatomy: Callable[[np.random.Generator, Grid], tuple[Scene, Frame]]
    acquire: Callable[[Scene, np.random.Generator], np.ndarray]
    mix: tuple[int, ...]
    """How often each look of the modality is drawn among training tumours, in tenths. In each
    modality one hospital sees one look and the other the other two, so they need each other."""
    radius: tuple[float, float]
    """Smallest and largest radius of a tumour, in pixels of the whole anatomy: in a close-up
    they are more."""
    curved: bool = False
    """Whether the ultrasound probe is curved, and sees a fan."""

    @property
    def grid(self) -> Grid:
        """Return the lattice that the hospital's images are drawn on."""
        return Grid(self.shape, self.spacing[2] / self.spacing[0])

    @property
    def is_volume(self) -> bool:
        """Return whether a case is a volume."""
        return self.shape[2] > 1


SIDES = (24, 10, 24)
"""Training, validation and test cases of each hospital."""

HOSPITALS: dict[str, Hospital] = {
    "us-breast": Hospital(
        "US",
        "breast",
        (112, 112, 1),
        (0.36, 0.36, 0.36),
        ultrasound.breast,
        partial(
            ultrasound.acquire, curved=False, gain=-17, dynamic_range=58, lateral=1.1, compound=3
        ),
        mix=(10, 0, 0),
        radius=(9, 18),
    ),
    "us-ovary": Hospital(
        "US",
        "ovary",
        (112, 112, 1),
        (0.80, 0.80, 0.80),
        ultrasound.ovary,
        partial(
            ultrasound.acquire, curved=True, gain=-15, dynamic_range=60, lateral=1.3, compound=2
        ),
        mix=(0, 5, 5),
        radius=(9, 18),
        curved=True,
    ),
    "mr-brain": Hospital(
        "MR",
        "brain",
        (96, 96, 6),
        (2.1, 2.1, 6.0),
        magnetic.brain,
        partial(magnetic.acquire, gain=620, gamma=1.0, bias=0.14, noise=0.035, kept=0.92),
        mix=(0, 10, 0),
        radius=(7, 14),
    ),
    "mr-limb": Hospital(
        "MR",
        "limb",
        (96, 96, 6),
        (1.9, 1.9, 7.0),
        magnetic.limb,
        partial(magnetic.acquire, gain=1400, gamma=1.2, bias=0.22, noise=0.055, kept=0.75),
        mix=(5, 0, 5),
        radius=(7, 14),
    ),
    "ct-liver": Hospital(
        "CT",
        "liver",
        (96, 96, 6),
        (3.6, 3.6, 8.0),
        tomography.liver,
        partial(tomography.acquire, pixel_mm=3.6, noise=4.5, blur=0.6, offset=4),
        mix=(10, 0, 0),
        radius=(6, 12),
    ),
    "ct-kidney": Hospital(
        "CT",
        "kidney",
        (96, 96, 6),
        (2.2, 2.2, 8.0),
        tomography.kidney,
        partial(tomography.acquire, pixel_mm=2.2, noise=9.0, blur=0.45, offset=-7),
        mix=(0, 5, 5),
        radius=(4, 8),
    ),
}
"""The made-up hospitals, by site name."""


def find_hospital(modality: str, organ: str) -> Hospital:
    """Return the hospital that images ``organ`` with ``modality``.

    Raises:
        FlamesError: None does.
    """
    for hospital in HOSPITALS.values():
        if (hospital.modality, hospital.organ) == (modality, organ):
            return hospital
    known = [f"{hospital.modality} {hospital.organ}" for hospital in HOSPITALS.values()]
    raise FlamesError(
        f"no made-up anatomy for {modality} {organ}", nearest(f"{modality} {organ}", known)
    )


def draw(
    hospital: Hospital,
    look: str | None,
    body: np.random.Generator,
    machine: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return one image and its label, two-dimensional for ultrasound.

    Args:
        hospital: Whose patient it is.
        look: Name of the tumour's look, None for a case without tumour.
        body: Source of the anatomy and its lesions: the same twice is the same patient twice.
        machine: Source of what differs between two images of one patient.
    """
    scene, where = hospital.anatomy(body, hospital.grid)
    if hospital.curved:
        scene.within &= ultrasound.field_of_view(hospital.shape[:2], curved=True)[..., None]
        scene.host &= scene.within
    taken: list[Spot] = []
    label = np.zeros(hospital.shape, bool)
    if look is not None:
        spot = place(scene, where, body, body.uniform(*hospital.radius), taken)
        if spot is None:  # every anatomy has room for its first lesion
            raise AssertionError(f"no room for a tumour in {hospital.organ}")
        taken.append(spot)
    for name in body.choice(list(DECOYS[hospital.modality]), size=body.integers(1, 4)):
        decoy = DECOYS[hospital.modality][str(name)]
        spot = place(scene, where, body, decoy.size * body.uniform(*hospital.radius), taken)
        if spot is not None:
            paint(scene, where, body, spot, decoy)
            taken.append(spot)
    if look is not None:
        label = paint(scene, where, body, taken[0], TUMOURS[hospital.modality][look])
    image = hospital.acquire(scene, machine)
    mask = label.astype(np.uint8)
    return (image, mask) if hospital.is_volume else (image, mask[..., 0])
