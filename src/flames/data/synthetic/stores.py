"""Writes made-up hospitals as site stores."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from flames import __version__
from flames.data.normalise import CT_WINDOW, intensity_window
from flames.data.store import (
    SPLITS,
    CaseRecord,
    Modality,
    SiteStore,
    Split,
    SplitInfo,
    StoreInfo,
    arrays_digest,
    cases_digest,
)
from flames.data.synthetic.hospitals import HOSPITALS, SIDES, Hospital, draw, find_hospital
from flames.data.synthetic.looks import TUMOURS
from flames.errors import FlamesError
from flames.files import save_json, save_text

FEWEST_CASES = 12
FRACTIONS = (3 / 11, 2 / 11, 6 / 11)
"""Shares of the sides where somebody says how many cases there are."""
TUMOUR_FREE = 0.2


@dataclass(frozen=True)
class Patient:
    """One made-up patient: side of the split, tumour and number of images."""

    split: Split
    number: int
    look: str | None
    images: int


def make_store(
    dest: Path | str,
    *,
    site: str,
    modality: Modality,
    organ: str,
    seed: int,
    cases: int | None = None,
) -> SiteStore:
    """Write one hospital's made-up cases as a store, the same bits for the same seed.

    A fifth of each side of the split has no tumour. Training tumours have only the looks that
    this hospital sees; validation and test tumours have every look of the modality equally often.
    On each side one patient in ten was imaged twice, and both images stay on that side.

    Args:
        dest: Folder of the store; may exist if empty.
        site: Name of the site.
        modality: DICOM code.
        organ: Organ that a made-up hospital has with this modality.
        seed: With the site's name it decides every pixel.
        cases: Images or volumes in all, at least 12: 3 of 11 for training, 2 for validation, 6 for
            testing. None for `SIDES`.

    Raises:
        FlamesError: There is no such hospital, too few cases, or the folder is in use.
    """
    dest, hospital = Path(dest), find_hospital(modality, organ)
    if cases is not None and cases < FEWEST_CASES:
        raise FlamesError(
            f"{cases} made-up cases are too few for three sides with and without tumour",
            f"ask for {FEWEST_CASES} or more",
        )
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise FlamesError(f"{dest} is already there", "choose another folder, or delete it first")
    counts = SIDES if cases is None else share_out(cases)
    key = (seed, zlib.crc32(site.encode()))
    records: dict[Split, list[CaseRecord]] = {side: [] for side in SPLITS}
    try:
        for patient in plan_patients(hospital, counts, np.random.default_rng(key)):
            records[patient.split] += _write_patient(dest, site, hospital, patient, key)
        _write_records(dest, site, hospital, seed, counts, records)
    except OSError as error:
        shutil.rmtree(dest, ignore_errors=True)
        raise FlamesError(
            f"cannot write {dest}: {error.strerror}", "free some space or choose another folder"
        ) from error
    return SiteStore.open(dest)


def make_federation(
    dest: Path | str,
    *,
    seed: int = 0,
    cases: int | None = None,
    made: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Write the six made-up hospitals as ``dest/SITE`` and return the stores' folders.

    Beside them lies ``federation.toml``, ready to run.

    Args:
        dest: Folder that will hold the stores.
        seed: Decides every pixel.
        cases: Cases of each site; None for `SIDES`.
        made: Called with the folder of each store once it is written.
    """
    paths = []
    for site, hospital in HOSPITALS.items():
        path = Path(dest) / site
        make_store(
            path,
            site=site,
            modality=hospital.modality,
            organ=hospital.organ,
            seed=seed,
            cases=cases,
        )
        paths.append(path)
        if made is not None:
            made(path)
    save_text(Path(dest) / "federation.toml", _federation_text(seed))
    return paths


def _federation_text(seed: int) -> str:
    sites = "".join(f'\n[[sites]]\nname = "{site}"\nstore = "{site}"\n' for site in HOSPITALS)
    return (
        "# Six made-up hospitals: 'flames run federation.toml --out RUN' trains them together.\n"
        f'name = "made-up hospitals"\nseed = {seed}\nrounds = 20\nthreads = 2\n\n'
        "[data]\nimage-size = 64\n\n"
        "[training]\nlocal-steps = 10\nlearning-rate = 0.003\n" + sites
    )


def share_out(cases: int) -> tuple[int, int, int]:
    """Return how many of ``cases`` are for training, validation and testing."""
    train, val = (round(cases * share) for share in FRACTIONS[:2])
    return train, val, cases - train - val


def plan_patients(
    hospital: Hospital, counts: tuple[int, int, int], rng: np.random.Generator
) -> list[Patient]:
    """Return who is imaged: side, look and number of images, ``counts`` images a side."""
    patients: list[Patient] = []
    for side, images in zip(SPLITS, counts, strict=True):
        pairs = max(1, images // 10) if images > 3 else 0
        people = images - pairs
        free = ceil(TUMOUR_FREE * people)
        looks = list(TUMOURS[hospital.modality])
        mix = hospital.mix if side == "train" else (1,) * len(looks)
        drawn: list[str | None] = [*_deal(looks, mix, people - free), *[None] * free]
        drawn = [drawn[index] for index in rng.permutation(people)]
        twice = set(rng.permutation(people)[:pairs].tolist())
        for index, look in enumerate(drawn):
            patients.append(Patient(side, len(patients) + 1, look, 1 + (index in twice)))
    return patients


def _deal(looks: list[str], mix: tuple[int, ...], number: int) -> list[str]:
    """Return ``number`` looks in the shares of ``mix``, by largest deficit: no luck involved."""
    share = np.array(mix) / sum(mix)
    given = np.zeros(len(looks))
    dealt = []
    for turn in range(1, number + 1):
        pick = int(np.argmax(share * turn - given))
        given[pick] += 1
        dealt.append(looks[pick])
    return dealt


def _write_patient(
    dest: Path, site: str, hospital: Hospital, patient: Patient, key: tuple[int, int]
) -> list[CaseRecord]:
    name = f"{site}-{patient.number:03d}"
    records = []
    for take in range(patient.images):
        body = np.random.default_rng((*key, patient.number))
        machine = np.random.default_rng((*key, patient.number, take + 1))
        image, label = draw(hospital, patient.look, body, machine)
        case_id = name if patient.images == 1 else f"{name}-{take + 1}"
        folder = dest / "cases" / case_id
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", image)
        np.save(folder / "label.npy", label)
        records.append(_record(case_id, name, hospital, patient, image, label))
    return records


def _record(
    case_id: str,
    name: str,
    hospital: Hospital,
    patient: Patient,
    image: np.ndarray,
    label: np.ndarray,
) -> CaseRecord:
    spacing = hospital.spacing[: image.ndim]
    affine = None
    if hospital.is_volume:
        matrix = np.diag([*spacing, 1.0])
        matrix[:3, 3] = [-(n - 1) / 2 * step for n, step in zip(image.shape, spacing, strict=True)]
        affine = tuple(tuple(float(value) for value in row) for row in matrix)
    return CaseRecord(
        case_id=case_id,
        patient_id=name,
        group=name,
        shape=image.shape,
        spacing=spacing,
        spacing_unit="mm",
        affine=affine,
        slice_axis=2 if hospital.is_volume else None,
        intensity=intensity_window(image, hospital.modality, CT_WINDOW),
        tumour_voxels=int(label.sum()),
        category=patient.look or "none",
        arrays_sha256=arrays_digest(image, label),
    )


def _write_records(
    dest: Path,
    site: str,
    hospital: Hospital,
    seed: int,
    counts: tuple[int, int, int],
    records: dict[Split, list[CaseRecord]],
) -> None:
    every = tuple(record for side in SPLITS for record in records[side])
    info = StoreInfo(
        site=site,
        modality=hospital.modality,
        organ=hospital.organ,
        source_format="synthetic",
        settings={"seed": seed, "ct_window": list(CT_WINDOW)},
        made_up=True,
        flames_version=__version__,
        cases=every,
    )
    splits = SplitInfo(
        seed=seed,
        fractions=(counts[0] / len(every), counts[1] / len(every), counts[2] / len(every)),
        cases_digest=cases_digest(every),
        **{side: tuple(record.case_id for record in records[side]) for side in SPLITS},
    )
    save_json(dest / "splits.json", splits.model_dump(mode="json"))
    save_json(dest / "store.json", info.model_dump(mode="json"))
