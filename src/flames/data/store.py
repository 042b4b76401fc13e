"""The site store: one hospital's prepared cases, with their split, as plain files.

A store is a folder::

    store.json              what the store is, and one record a case
    splits.json             which case is in train, val or test, fixed when the store was made
    cases/CASE/image.npy    the image as the source has it, uint8, int16, uint16 or float32
    cases/CASE/label.npy    uint8, 1 where there is tumour
    cache/                  what loaders derive; safe to delete

Arrays are read as memory maps. Two-dimensional images are ``(H, W)``. Volumes are in the nearest
orientation to RAS, ``(X, Y, Z)``, and stay volumes: slicing is the loader's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from flames.config import Modality
from flames.data.mapped import map_array
from flames.errors import FlamesError

Split = Literal["train", "val", "test"]
ModelT = TypeVar("ModelT", bound=BaseModel)
SPLITS: tuple[Split, ...] = ("train", "val", "test")
STORE_SCHEMA = 1
NEEDED: dict[Split, str] = {"train": "training", "val": "validation"}
"""Sides of the split that a site must have: to train on, and to judge its weights on."""
MORE_PATIENTS = "prepare a store of three patients or more, so that no side of its split is empty"


class CaseRecord(BaseModel):
    """What is known of one case: one ultrasound image or one whole volume."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    """Unique in the store; letters, digits, ``-``, ``_`` and ``.`` only: also a folder name."""
    patient_id: str | None
    """The patient where the source records one."""
    group: str
    """Unit of the split: the patient, or the group of near-duplicate images."""
    shape: tuple[int, ...]
    """Array shape, ``(H, W)`` or ``(X, Y, Z)``."""
    spacing: tuple[float, ...]
    """Distance between neighbours in array-axis order, in ``spacing_unit``."""
    spacing_unit: Literal["mm", "px"]
    """``px`` where the source records no spacing; it is then 1."""
    affine: tuple[tuple[float, ...], ...] | None
    """4×4 map from array index to RAS millimetres, for volumes."""
    slice_axis: int | None
    """Axis across slices: that of a single one, the thickest, or the last; None in 2D."""
    intensity: tuple[float, float]
    """Values that normalisation maps to -1 and 1."""
    tumour_voxels: int
    """Pixels or voxels of tumour in the label; 0 is a case without tumour."""
    hospital: str | None = None
    """The hospital inside the dataset, where its names tell."""
    category: str | None = None
    """The source's own class, such as ``benign``."""
    sources: tuple[str, ...] = ()
    """Files it came from, relative to the source folder: image first, then masks."""
    source_sha256: str = ""
    """Digest of the source files' bytes and the settings that prepared them."""
    arrays_sha256: str = ""
    """Digest of both arrays in the store."""
    doubt: str | None = None
    """What speaks for slices that are missing from a DICOM series; left out where nothing does."""

    @model_serializer(mode="wrap")
    def _without_doubt(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the record; one without doubt is as records always were, and so is its digest."""
        said: dict[str, Any] = write(self)
        if self.doubt is None:
            del said["doubt"]
        return said

    @property
    def has_tumour(self) -> bool:
        """Return whether the label holds any tumour."""
        return self.tumour_voxels > 0


class StoreInfo(BaseModel):
    """What ``store.json`` says: who, what, how prepared, and every case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = STORE_SCHEMA
    site: str
    modality: Modality
    organ: str
    source_format: str
    settings: dict[str, Any]
    """Options of the preparation that change numbers, such as ``ct_window``."""
    made_up: bool = False
    """True for images that FLAMES drew itself: nobody's, so pictures of them are allowed."""
    flames_version: str
    cases: tuple[CaseRecord, ...]


class SplitInfo(BaseModel):
    """What ``splits.json`` says: chosen once, by seed, and never changed between runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    fractions: tuple[float, float, float]
    """Shares of train, val and test."""
    cases_digest: str
    """`cases_digest` of the cases that were split: a store changed since then is refused."""
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def arrays_digest(image: np.ndarray, label: np.ndarray) -> str:
    """Return the SHA-256 of image and label, their shapes and dtypes included."""
    digest = hashlib.sha256()
    for array in (image, label):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def cases_digest(cases: Iterable[CaseRecord]) -> str:
    """Return one digest of identities, groups and contents, whatever the order of the cases."""
    lines = sorted(f"{c.case_id} {c.group} {c.arrays_sha256}" for c in cases)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def missing_sides(cases: Mapping[Split, int]) -> str:
    """Return what a site lacks to train and to judge its weights; empty where it lacks nothing.

    >>> missing_sides({"train": 4, "val": 0, "test": 3})
    'no validation case'

    Args:
        cases: Numbers of cases by side of the split.
    """
    return " and ".join(f"no {word} case" for side, word in NEEDED.items() if not cases.get(side))


def prepared_digest(cases: Iterable[CaseRecord]) -> str:
    """Return one digest of how cases are seen and measured, whatever their order.

    Arrays keep the source's values, so that another CT window or spacing leaves `cases_digest` as
    it is.
    """
    lines = sorted(
        f"{c.case_id} {c.intensity} {c.spacing} {c.spacing_unit} {c.slice_axis}" for c in cases
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class SiteStore:
    """A prepared store, opened for reading."""

    path: Path
    info: StoreInfo
    splits: SplitInfo

    @classmethod
    def open(cls, path: Path | str) -> SiteStore:
        """Return the store at ``path`` once its records and its split fit together.

        Raises:
            FlamesError: There is no store, it is of another version, an array is missing or of
                another size, the split names other cases, or a group is on two sides of it.
        """
        path = Path(path)
        info = _read(path / "store.json", StoreInfo)
        if info.schema_version != STORE_SCHEMA:
            raise FlamesError(
                f"{path} has store schema {info.schema_version}, this flames reads {STORE_SCHEMA}",
                "prepare the store again with 'flames data add'",
            )
        splits = _read(path / "splits.json", SplitInfo)
        store = cls(path, info, splits)
        store._check_split()
        store._check_files()
        return store

    @property
    def site(self) -> str:
        """Return the site's name."""
        return self.info.site

    @property
    def modality(self) -> Modality:
        """Return the DICOM code of the modality."""
        return self.info.modality

    @property
    def organ(self) -> str:
        """Return the organ."""
        return self.info.organ

    @cached_property
    def cases(self) -> dict[str, CaseRecord]:
        """Return the records by ``case_id``."""
        return {case.case_id: case for case in self.info.cases}

    def split(self, name: Split) -> tuple[CaseRecord, ...]:
        """Return the records of one side of the split, in its written order."""
        return tuple(self.cases[case_id] for case_id in getattr(self.splits, name))

    def check_sides(self) -> None:
        """Look whether a site can train on the store and judge its weights on it.

        Raises:
            FlamesError: It has no training or no validation case.
        """
        missing = missing_sides({side: len(getattr(self.splits, side)) for side in NEEDED})
        if missing:
            raise FlamesError(f"{self.path} has {missing}", MORE_PATIENTS)

    def image(self, case_id: str) -> np.ndarray:
        """Return the image as a read-only memory map, in source intensities."""
        return self._array(case_id, "image")

    def label(self, case_id: str) -> np.ndarray:
        """Return the label as a read-only memory map of 0 and 1."""
        return self._array(case_id, "label")

    def verify(self) -> None:
        """Compare every array with its checksum.

        Raises:
            FlamesError: An array's bytes are not those that were prepared.
        """
        for case in self.info.cases:
            if arrays_digest(self.image(case.case_id), self.label(case.case_id)) != (
                case.arrays_sha256
            ):
                raise FlamesError(
                    f"{self.path / 'cases' / case.case_id} changed since the store was made",
                    "prepare the store again from its source with 'flames data add'",
                )

    def _array(self, case_id: str, name: str) -> np.ndarray:
        path = f"{self.path}/cases/{case_id}/{name}.npy"
        try:
            return map_array(path)
        except (OSError, ValueError) as error:
            raise FlamesError(
                f"cannot read {path}: {error}", "prepare the store again with 'flames data add'"
            ) from error

    def _check_split(self) -> None:
        where = self.path / "splits.json"
        if self.splits.cases_digest != cases_digest(self.info.cases):
            raise FlamesError(
                f"{self.path / 'store.json'} changed since {where} was made",
                "restore the old file, or prepare a new store from the source: "
                "a split is never changed under a running study",
            )
        sides: dict[str, Split] = {}
        seen: set[str] = set()
        for name in SPLITS:
            for case_id in getattr(self.splits, name):
                if case_id not in self.cases or case_id in seen:
                    raise FlamesError(
                        f"{where} names case {case_id!r}, which is twice there or not in the store",
                        "restore the file as 'flames data add' wrote it",
                    )
                seen.add(case_id)
                group = self.cases[case_id].group
                if sides.setdefault(group, name) != name:
                    raise FlamesError(
                        f"{where} puts patient or duplicate group {group!r} in both "
                        f"{sides[group]} and {name}",
                        "a patient belongs to one side only: restore the file as "
                        "'flames data add' wrote it",
                    )
        missing = set(self.cases) - seen
        if missing:
            raise FlamesError(
                f"{where} leaves out case {min(missing)!r} and {len(missing) - 1} more",
                "restore the file as 'flames data add' wrote it",
            )

    def _check_files(self) -> None:
        for case in self.info.cases:
            image, label = self.image(case.case_id), self.label(case.case_id)
            if image.shape != case.shape or label.shape != case.shape:
                raise FlamesError(
                    f"{self.path / 'cases' / case.case_id}: image {image.shape} and label "
                    f"{label.shape} do not have the recorded shape {case.shape}",
                    "prepare the store again with 'flames data add'",
                )


def _read(path: Path, model: type[ModelT]) -> ModelT:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FlamesError(
            f"no site store at {path.parent}: {path.name} cannot be read ({error.strerror})",
            "prepare one with 'flames data add', or 'flames data make' for made-up cases",
        ) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FlamesError(
            f"{path} is damaged: {place or 'content'}: {first['msg']}",
            "restore the file, or prepare the store again with 'flames data add'",
        ) from error
