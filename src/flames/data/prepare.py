"""A source folder becomes a site store: checked, prepared in parallel, grouped and split once.

Every case is prepared in ``cases/.CASE.partial`` and renamed when whole, so a run that was stopped
goes on where it was. ``store.json`` and then ``splits.json`` come last: before that there is no
store.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import flames
from flames.config import MODALITIES
from flames.data.archives import unpacked
from flames.data.case_folder import CaseJob, Outcome, clear_partials, is_partial, prepare_all
from flames.data.datasets import check_modality, dataset_options
from flames.data.duplicates import duplicate_groups, signature
from flames.data.formats import find_sources
from flames.data.mapped import map_array
from flames.data.normalise import CT_WINDOW
from flames.data.sources import Source, SourceOptions, check_folder, select
from flames.data.splits import FRACTIONS, check_fractions, split_cases
from flames.data.store import (
    SPLITS,
    STORE_SCHEMA,
    CaseRecord,
    Modality,
    SiteStore,
    SplitInfo,
    StoreInfo,
)
from flames.errors import FlamesError, nearest
from flames.files import save_text

KEPT_SPLIT = "kept_split"
"""Among a store's settings, the digest of the split that it keeps."""
NAMED = 5
"""Cases that a note names."""
VALUES = 10
"""Label values that a note names; an image in place of its label has thousands."""


@dataclass(frozen=True)
class StoreRequest:
    """What a store is to be: whose, of what, prepared and split how."""

    source_format: str
    site: str
    modality: Modality
    organ: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values that pass, by ``hospital``, ``category`` or ``patient``; empty is every case."""
    options: SourceOptions = field(default_factory=SourceOptions)
    ct_window: tuple[float, float] = CT_WINDOW
    fractions: tuple[float, float, float] = FRACTIONS
    seed: int = 0
    keep_split: Path | None = None
    """An earlier store of the site, whose cases stay on their sides."""

    def settings(self) -> dict[str, Any]:
        """Return what ``store.json`` keeps of how the numbers came about."""
        said = {k: v for k, v in self.options.as_dict().items() if v or (v == 0 and v is not False)}
        found: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in said.items()}
        if self.modality == "CT":
            found["ct_window"] = list(self.ct_window)
        if self.where:
            found["where"] = {key: list(values) for key, values in sorted(self.where.items())}
        return found


@dataclass(frozen=True)
class Added:
    """What `add_store` did."""

    store: SiteStore
    prepared: int
    """Cases prepared now."""
    kept: int
    """Cases that were already prepared from the same bytes with the same settings."""
    notes: tuple[str, ...]
    """What a person should know, each said once."""


def add_store(
    source: Path,
    dest: Path,
    request: StoreRequest,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Added:
    """Prepare the cases of ``source`` as the site store ``dest``, or find that nothing is new.

    Args:
        source: Folder laid out as ``request.source_format`` says, or a ZIP of it; only read.
        dest: The store, new, empty, or begun before by the same call.
        request: What the store is to be.
        workers: Cases prepared side by side, in threads, or processes for many DICOM series.
        progress: Called with cases done and cases in all.

    Raises:
        FlamesError: Something in the source is damaged or does not fit, ``dest`` is another store
            or another folder, the source changed since ``dest`` was split, or the disk is full.
    """
    source, dest = Path(source), Path(dest)
    _check_request(request)
    with unpacked(source, dest.parent) as folder:
        return _add(folder, dest, request, workers, progress)


def _add(
    source: Path,
    dest: Path,
    request: StoreRequest,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Added:
    options = dataset_options(request.source_format, request.options, source)
    request = replace(request, options=options)
    found = of_modality(find_sources(source, request.source_format, request.options), request)
    sources = select(found, request.where)
    try:
        old = _check_dest(source, dest, request)
    except OSError as error:
        raise FlamesError(
            f"cannot look at {dest}: {error.strerror or error}", "choose another folder as DEST"
        ) from error
    check_modality(request.source_format, request.modality)
    earlier = None if request.keep_split is None else _earlier(request.keep_split, dest, request)
    kept_split = {} if earlier is None else {KEPT_SPLIT: _split_digest(earlier)}
    jobs = [CaseJob(s, source, dest / "cases", request.modality, request.options, request.ct_window)
            for s in sources]  # fmt: skip
    if old is not None:
        if old.info.settings.get(KEPT_SPLIT) != kept_split.get(KEPT_SPLIT):
            raise FlamesError(
                f"{dest} was split with another --keep-split, or without one",
                "give the same command again, or choose a new folder as DEST",
            )
        return _compare(old, jobs, request, workers, progress)
    outcomes = prepare_all(jobs, workers, progress)
    _refuse_errors(outcomes, len(jobs))
    records = _grouped([o.record for o in outcomes if o.record is not None], dest)
    fixed = {} if earlier is None else fixed_sides(records, earlier)
    splits = split_cases(records, seed=request.seed, fractions=request.fractions, fixed=fixed)
    _refuse_moved(records, splits, fixed)
    info = StoreInfo(
        schema_version=STORE_SCHEMA,
        site=request.site,
        modality=request.modality,
        organ=request.organ,
        source_format=request.source_format,
        settings=request.settings() | kept_split,
        flames_version=flames.__version__,
        cases=tuple(records),
    )
    _clear_strays(dest, {record.case_id for record in records})
    save_text(dest / "store.json", info.model_dump_json(indent=2) + "\n")
    save_text(dest / "splits.json", splits.model_dump_json(indent=2) + "\n")
    kept = sum(o.kept for o in outcomes)
    notes = _notes(outcomes)
    if not splits.train:
        notes += ("fewer than three patients or groups: every case is a test case",)
    return Added(SiteStore.open(dest), len(records) - kept, kept, notes)


def of_modality(sources: list[Source], request: StoreRequest) -> list[Source]:
    """Return the sources that are of the request's modality, or do not tell theirs.

    Raises:
        FlamesError: None is.
    """
    kept = [s for s in sources if s.modality in (None, request.modality)]
    if not kept:
        there = sorted({str(s.modality) for s in sources})
        raise FlamesError(
            f"the source has no labelled image of {request.modality}, only of {', '.join(there)}",
            "correct --modality",
        )
    return kept


def _check_request(request: StoreRequest) -> None:
    if request.modality not in MODALITIES:
        raise FlamesError(
            f"modality {request.modality!r} is not a code that flames knows",
            nearest(str(request.modality), MODALITIES),
        )
    for name in ("site", "organ"):
        if not getattr(request, name).strip():
            raise FlamesError(f"the {name} has no name", f"say --{name} NAME")
    low, high = request.ct_window
    if not low < high:
        raise FlamesError(
            f"the CT window {low:g} to {high:g} is empty", "write it as --ct-window -200,300"
        )
    check_fractions(request.fractions)


def _check_dest(source: Path, dest: Path, request: StoreRequest) -> SiteStore | None:
    """Return the whole store at ``dest``, or None where one can be made or goes on."""
    check_folder(source)
    if source.resolve() == dest.resolve():
        raise FlamesError(f"SOURCE and DEST are both {dest}", "choose a new folder as DEST")
    if source.resolve().is_relative_to(dest.resolve()):
        raise FlamesError(f"SOURCE {source} lies in DEST {dest}", "choose a new folder as DEST")
    if not dest.exists():
        return None
    check_folder(dest)
    if (dest / "splits.json").exists():
        store = _whole(dest)
        _same(store.info, request, dest)
        return store
    if any(dest.iterdir()) and not _begun(dest):
        raise FlamesError(
            f"{dest} has files and is not a site store", "choose a new or an empty folder as DEST"
        )
    return None


def _whole(dest: Path) -> SiteStore:
    try:
        return SiteStore.open(dest)
    except FlamesError as error:
        raise FlamesError(
            error.found,
            f"take {dest} away and give the same command again: from the same source it makes the "
            "same cases and the same split",
        ) from error


def _begun(dest: Path) -> bool:
    """Return whether a folder without a split is a store that was begun: it has its own cases."""
    cases = dest / "cases"
    if (dest / "store.json").exists() or not cases.is_dir():
        return cases.is_dir()
    found = list(cases.iterdir())
    return not found or any(
        (path / "case.json").exists() or is_partial(path.name) for path in found
    )


def _same(info: StoreInfo, request: StoreRequest, dest: Path) -> None:
    for name in ("site", "modality", "organ", "source_format"):
        there, asked = getattr(info, name), getattr(request, name)
        if there != asked:
            raise FlamesError(
                f"{dest} is the store of {name} {there!r}, not {asked!r}",
                "choose a new folder as DEST: a store is one site's, of one modality and organ",
            )


def _compare(
    old: SiteStore,
    jobs: list[CaseJob],
    request: StoreRequest,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Added:
    before = {case.case_id: case.source_sha256 for case in old.info.cases}
    outcomes = prepare_all(jobs, workers, progress, digest_only=True)
    _refuse_errors(outcomes, len(jobs))
    now = {o.case_id: o.source_sha256 for o in outcomes}
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if changed:
        how = "is new" if changed[0] not in before else "is gone" if changed[0] not in now else (
            "changed, or is prepared with other settings or by another version")  # fmt: skip
        raise FlamesError(
            f"{old.path} is split already, and since then case {changed[0]!r} {how} "
            f"({len(changed)} such cases)",
            "a split never changes under a running study: "
            "choose a new folder as DEST, or bring the source and settings back",
        )
    if (old.splits.seed, old.splits.fractions) != (request.seed, request.fractions):
        raise FlamesError(
            f"{old.path} is split with seed {old.splits.seed} and shares {old.splits.fractions}",
            "choose a new folder as DEST for another split",
        )
    return Added(old, 0, len(before), ())


def _earlier(path: Path, dest: Path, request: StoreRequest) -> SiteStore:
    """Return the store whose split is kept."""
    if path.resolve() == dest.resolve():
        raise FlamesError(
            f"--keep-split and DEST are both {dest}",
            "choose a new folder as DEST: the earlier store stays as it is",
        )
    store = SiteStore.open(path)
    _same(store.info, request, path)
    return store


def _split_digest(store: SiteStore) -> str:
    return hashlib.sha256(store.splits.model_dump_json().encode()).hexdigest()


def fixed_sides(records: Sequence[CaseRecord], earlier: SiteStore) -> dict[str, int]:
    """Return the side, as a number in `SPLITS`, of each group that ``earlier`` knows.

    It knows a group by a case or a patient of it.

    Raises:
        FlamesError: None of its cases is there, or a group has cases of two of its sides.
    """
    known: dict[str, int] = {}
    patients: dict[str, int] = {}
    for number, side in enumerate(SPLITS):
        for case in earlier.split(side):
            known[case.case_id] = number
            if case.patient_id is not None:
                patients[case.patient_id] = number
    found: dict[str, int] = {}
    for record in records:
        side_of_patient = None if record.patient_id is None else patients.get(record.patient_id)
        now = known.get(record.case_id, side_of_patient)
        if now is None:
            continue
        if found.setdefault(record.group, now) != now:
            group = sorted(r.case_id for r in records if r.group == record.group)
            raise FlamesError(
                f"{', '.join(group[:NAMED])} belong together now, and {earlier.path} has them on "
                f"its sides {SPLITS[found[record.group]]} and {SPLITS[now]}",
                "they are of one patient, or nearly the same picture: leave those of one side out "
                "of SOURCE, or leave out --keep-split",
            )
    if not found:
        raise FlamesError(
            f"none of the {len(known)} cases of {earlier.path} is in the source",
            "SOURCE holds the earlier cases and the new ones; for dicom give the earlier store's "
            "key too, with --key",
        )
    return found


def _refuse_moved(
    records: Sequence[CaseRecord], splits: SplitInfo, fixed: Mapping[str, int]
) -> None:
    """Refuse a split that had to move a group, because a side would have been empty."""
    moved = sorted(
        record.case_id
        for record in records
        if record.group in fixed
        and record.case_id not in getattr(splits, SPLITS[fixed[record.group]])
    )
    if moved:
        raise FlamesError(
            f"without moving {', '.join(moved[:NAMED])} a side of the split would be empty",
            "add more new cases or bring back those that are gone, or leave out --keep-split",
        )


def _refuse_errors(outcomes: list[Outcome], total: int) -> None:
    errors = [o.error for o in outcomes if o.error is not None]
    if not errors:
        return
    found, remedy = errors[0]
    if len(errors) > 1:
        others = "\n  ".join(e[0] for e in errors[1:10])
        found = f"{len(errors)} of {total} cases cannot be prepared:\n  {found}\n  {others}"
        found += f"\n  and {len(errors) - 10} more" if len(errors) > 10 else ""
    raise FlamesError(found, f"{remedy}; then give the same command again, it goes on from here")


def _notes(outcomes: list[Outcome]) -> tuple[str, ...]:
    """Return what is to be known of cases, each thing once with the cases that it is of."""
    cases: dict[str, list[str]] = {}
    for outcome in outcomes:
        for note in outcome.notes:
            cases.setdefault(note, []).append(outcome.case_id)
    found = []
    for note, names in cases.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        found.append(f"{note}: {', '.join(names[:NAMED])}{more}")
    values = sorted({value for outcome in outcomes for value in outcome.label_values})
    if len(values) > 1:
        more = f" and {len(values) - VALUES} more" if len(values) > VALUES else ""
        found.append(
            f"label values {', '.join(map(str, values[:VALUES]))}{more} are all taken for tumour; "
            "where one is not, name them with --tumour-labels and --other-labels, and choose a new "
            "DEST"
        )
    return tuple(found)


def _grouped(records: list[CaseRecord], dest: Path) -> list[CaseRecord]:
    """Return the records with their groups: patients, or near-duplicate pictures."""
    alone = [r for r in records if r.patient_id is None and len(r.shape) == 2]
    groups = duplicate_groups(
        {r.case_id: signature(_image(dest / "cases" / r.case_id / "image.npy")) for r in alone}
    )
    return [
        r.model_copy(update={"group": r.patient_id or groups.get(r.case_id, r.case_id)})
        for r in records
    ]


def _image(path: Path) -> np.ndarray:
    try:
        return map_array(str(path))
    except (OSError, ValueError) as error:
        raise FlamesError(
            f"cannot read {path} again: {error}",
            "give the same command again: it goes on from here",
        ) from error


def _clear_strays(dest: Path, wanted: set[str]) -> None:
    """Take away cases that a stopped run of another selection left behind."""
    clear_partials(dest / "cases")
    for path in (dest / "cases").iterdir():
        if path.name not in wanted and (path / "case.json").exists():
            shutil.rmtree(path)
