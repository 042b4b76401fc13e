"""One source becomes one case folder, whole or not at all; many do so in parallel."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from flames.data.cases import Case, read_case
from flames.data.companions import companions
from flames.data.mapped import map_array
from flames.data.normalise import intensity_window, looks_like_hu
from flames.data.pictures import frame_count
from flames.data.sources import Source, SourceOptions
from flames.data.store import CaseRecord, Modality, arrays_digest
from flames.errors import FlamesError
from flames.processes import Workers

PREPARE_VERSION = 2
"""Raised when the same bytes and settings give other arrays or records."""
STACKS_VERSION = 1
"""The same of masks with many pages, whose cases alone it changes."""
PROCESSES_FROM = 8
"""DICOM series; starting a process takes as long as reading two or three."""
NOT_HU = (
    "CT without any value at or below -200 is not in Hounsfield units: "
    "its window comes from its own voxels, not from the CT window"
)

SAID = "said"
"""Key of ``case.json`` that no record has."""
LIKE_CT = "an image with values at or below -200, as air has in a CT, may be no {}"
FINDING = ("images", "masks", "patient")
"""Options that find files and patients; what they found is in the facts of a source."""
NO_PATIENT = (
    "the files name no patient, so a study counts as one: several of one patient may lie on two "
    "sides of the split"
)
NO_THICKNESS = (
    "a single slice does not say how thick it is, so its spacing counts as unknown, and distances "
    "and volumes are in pixels and voxels"
)


@dataclass(frozen=True)
class CaseJob:
    """All that one process needs to prepare one case."""

    source: Source
    folder: Path
    """The source folder, to which file names in the record are relative."""
    cases: Path
    modality: Modality
    options: SourceOptions
    ct_window: tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """What became of one job; plain values, so that it travels between processes."""

    case_id: str
    source_sha256: str = ""
    record: CaseRecord | None = None
    kept: bool = False
    notes: tuple[str, ...] = ()
    """What a person should know of the case."""
    label_values: tuple[int, ...] = ()
    """As `Case.label_values`."""
    error: tuple[str, str] | None = None
    """What was found, and the remedy."""
    fatal: bool = False
    """True where no other case can go better, as on a full disk."""


def prepare_all(
    jobs: list[CaseJob],
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    digest_only: bool = False,
) -> list[Outcome]:
    """Return the outcome of every job, in the order of ``jobs``.

    Raises:
        FlamesError: A job failed in a way that all others would, or a process died.
    """
    work = digest_case if digest_only else prepare_case
    done: dict[str, Outcome] = {}
    for outcome in _outcomes(work, jobs, workers):
        if outcome.fatal and outcome.error is not None:
            raise FlamesError(*outcome.error)
        done[outcome.case_id] = outcome
        if progress is not None:
            progress(len(done), len(jobs))
    return [done[job.source.case_id] for job in jobs]


def prepare_case(job: CaseJob) -> Outcome:
    """Return the record of ``job``, whose folder is then whole on disk."""
    case_id = job.source.case_id
    target = job.cases / case_id
    try:
        digest = source_digest(job)
        known = _kept(target, digest)
        if known is not None:
            return _outcome(job, *known, kept=True)
        case = read_case(job.source, job.options)
        record = _record(job, case, digest)
    except FlamesError as error:
        return Outcome(case_id, error=(error.found, error.remedy))
    try:
        _write(target, case, record)
    except FlamesError as error:
        return Outcome(case_id, error=(error.found, error.remedy), fatal=True)
    except OSError as error:
        shutil.rmtree(_partial(target), ignore_errors=True)
        return Outcome(
            case_id,
            error=(
                f"cannot write {target}: {error.strerror or error}",
                "free some space or choose another folder, then give the same command again: "
                "it goes on from here",
            ),
            fatal=True,
        )
    return _outcome(job, record, _to_say(case), kept=False)


def digest_case(job: CaseJob) -> Outcome:
    """Return only the digest of the job's source files and settings."""
    try:
        return Outcome(job.source.case_id, source_digest(job))
    except FlamesError as error:
        return Outcome(job.source.case_id, error=(error.found, error.remedy))


def source_digest(job: CaseJob) -> str:
    """Return the SHA-256 of the files' bytes and of all that decides what they become."""
    facts = asdict(job.source)
    facts["images"], facts["masks"] = _names(job, job.source.images), _names(job, job.source.masks)
    for name in () if job.source.private_names else (*facts["images"], *facts["masks"]):
        if name.encode(errors="replace") != os.fsencode(name):
            raise FlamesError(
                f"the name {os.fsencode(name)!r} is not UTF-8 text, so no record can hold it",
                "rename the file or its folder",
            )
    facts |= {
        "options": {k: v for k, v in job.options.as_dict().items() if k not in FINDING},
        "modality": job.modality,
        "ct_window": job.ct_window if job.modality == "CT" else None,
        "version": PREPARE_VERSION,
    }
    if job.source.reader == "picture" and frame_count(job.source.images[0]) > 1:
        facts["stacks"] = STACKS_VERSION
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    files = (*job.source.images, *job.source.masks)
    beside = files if job.source.reader == "volume" else ()
    for path in chain(files, *(companions(file) for file in beside)):
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise FlamesError(
                f"cannot read {path}: {error.strerror}", "check that the file is there and readable"
            ) from error
    return digest.hexdigest()


def is_partial(name: str) -> bool:
    """Return whether a folder of this name is a case that a stopped run left half written.

    >>> [is_partial(name) for name in (".a-1.partial", "a-1")]
    [True, False]
    """
    return name.startswith(".") and name.endswith(".partial")


def clear_partials(cases: Path) -> None:
    """Take away the case folders that a stopped run left half written."""
    for path in cases.glob(".*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def _outcomes(
    work: Callable[[CaseJob], Outcome], jobs: list[CaseJob], workers: int
) -> Iterable[Outcome]:
    pool = _pool(jobs, workers)
    if pool is None:
        yield from map(work, jobs)
        return
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise FlamesError(
            "a process that prepared cases died, perhaps of too little memory",
            "give the same command again with --workers 1: it goes on from here",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(jobs: list[CaseJob], workers: int) -> Executor | None:
    """Return what runs jobs side by side, or None where one after another is faster.

    Unzipping, decoding, copying, digests and writing let other threads run, and a thread starts at
    once. DICOM is parsed by Python code, which does not: processes, once they repay their start.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        return None
    if all(job.source.reader != "dicom" for job in jobs):
        return ThreadPoolExecutor(workers)
    if len(jobs) < PROCESSES_FROM:
        return None
    return Workers(workers)


def _record(job: CaseJob, case: Case, digest: str) -> CaseRecord:
    source, affine = job.source, case.affine
    return CaseRecord(
        case_id=source.case_id,
        patient_id=source.patient_id,
        group=source.patient_id or source.case_id,
        shape=case.image.shape,
        spacing=case.spacing,
        spacing_unit="mm" if case.spacing_known else "px",
        affine=None if affine is None else tuple(tuple(float(v) for v in row) for row in affine),
        slice_axis=case.slice_axis,
        intensity=intensity_window(case.image, job.modality, job.ct_window),
        tumour_voxels=int(case.label.sum(dtype=np.int64)),
        hospital=source.hospital,
        category=source.category,
        sources=() if source.private_names else tuple(_names(job, (*source.images, *source.masks))),
        source_sha256=digest,
        arrays_sha256=arrays_digest(case.image, case.label),
        doubt=case.doubt,
    )


def _write(target: Path, case: Case, record: CaseRecord) -> None:
    if target.exists() and not (target / "case.json").exists():
        raise FlamesError(
            f"{target} is there already and is not a prepared case", "choose a new folder as DEST"
        )
    folder = _partial(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    np.save(folder / "image.npy", case.image, allow_pickle=False)
    np.save(folder / "label.npy", case.label, allow_pickle=False)
    content = record.model_dump(mode="json") | {SAID: _to_say(case)}
    (folder / "case.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    folder.replace(target)


def _to_say(case: Case) -> dict[str, Any]:
    """Return what neither record nor arrays tell of a case and a note may: kept beside them, since
    notes are first told when all cases are there."""
    return {
        "label_values": list(case.label_values),
        "patient_known": case.patient_known,
        "thickness_known": case.thickness_known,
    }


def _kept(target: Path, digest: str) -> tuple[CaseRecord, dict[str, Any]] | None:
    try:
        content = json.loads((target / "case.json").read_bytes())
        said = dict(content.pop(SAID, {}))
        record = CaseRecord.model_validate(content)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    whole = record.source_sha256 == digest and _has_arrays(target, record)
    return (record, said) if whole else None


def _has_arrays(target: Path, record: CaseRecord) -> bool:
    """Return whether both arrays are there and whole; after a power failure they may not be."""
    try:
        shapes = {map_array(str(target / f"{name}.npy")).shape for name in ("image", "label")}
    except (OSError, ValueError):
        return False
    return shapes == {tuple(record.shape)}


def _outcome(job: CaseJob, record: CaseRecord, said: dict[str, Any], *, kept: bool) -> Outcome:
    notes = _notes(job, record)
    unknown = {"patient_known": NO_PATIENT, "thickness_known": NO_THICKNESS}
    notes += tuple(note for key, note in unknown.items() if not said.get(key, True))
    values = tuple(int(value) for value in said.get("label_values", ()))
    return Outcome(
        record.case_id, record.source_sha256, record, kept=kept, notes=notes, label_values=values
    )


def _notes(job: CaseJob, record: CaseRecord) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    if record.doubt is not None:
        # The folder is told here only: a store keeps no name of DICOM.
        series = job.source.images[0].parent.relative_to(job.folder)
        found = (f"{series}: {record.doubt}: slices may be missing, or were never made",)
    as_ct = looks_like_hu(map_array(job.cases / record.case_id / "image.npy"))
    if as_ct != (job.modality == "CT"):
        found += (LIKE_CT.format(job.modality) if as_ct else NOT_HU,)
    return found


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _names(job: CaseJob, paths: Iterable[Path]) -> list[str]:
    return [path.relative_to(job.folder).as_posix() for path in paths]
