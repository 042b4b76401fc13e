"""A prepared store looked over: counts, sizes, intensities, and what a person should look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from flames.data.duplicates import signature, similar_pairs
from flames.data.folds import FEWEST_FOLDS, in_fold
from flames.data.mask_place import REACH, SIDE, best_place, step_map
from flames.data.normalise import normalise
from flames.data.prior import best_mask, mask_dice, tumour_share
from flames.data.store import SPLITS, CaseRecord, SiteStore, Split, arrays_digest
from flames.data.writing import LETTER, shows_writing

BINS = 64
INVERTED_SHARE = 0.8
FRAME_SHARE = 0.5
"""Share of the outermost pixels from which a mask looks inverted."""
CASE_GAIN = 2.5
"""An edge so much stronger elsewhere is worth a look; one true mask in twenty can reach it."""
STORE_GAIN = 1.1
"""The same of the mean over a store; true masks of nine real stores stay below 1.02."""
FEW = 5
"""A mean over fewer cases says nothing of a shift."""
PLACED = 0.37
"""Dice of one mask for all images from which it says much: of nine real stores, those cropped
around tumours have 0.40 and 0.51, ovaries 0.56, breasts 0.33, all others 0.20 at most."""
PLACE_FOLDS = 4
PRIOR_SIZE = 96
VOLUME_THRESHOLD = 0.95
"""Likeness of middle slices: those of two patients, head beside head, can reach 0.9."""


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know."""

    kind: str
    """``changed``, ``leak``, ``no-tumour``, ``blank``, ``inverted``, ``writing``, ``slices``,
    ``shifted``, ``edge-elsewhere`` or ``placed``."""
    text: str
    cases: tuple[str, ...]
    """Empty where it is said of the store as a whole."""
    problem: bool
    """True where the store must not be used as it is, false where somebody should look."""


@dataclass(frozen=True)
class CaseCheck:
    """What was measured in one case."""

    case_id: str
    split: Split
    category: str | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    tumour_share: float
    """Share of pixels or voxels that is tumour."""
    tumour_size: float
    """In millilitres, or in pixels where spacing is not known."""
    edge_gain: float | None
    """`flames.data.mask_place.Place.gain`, of the slice with most tumour."""
    near_duplicates: int
    """How many other cases look alike."""


@dataclass(frozen=True)
class Check:
    """All that `check_store` found."""

    site: str
    modality: str
    organ: str
    size_unit: str
    """``ml``, ``mm2`` or ``px``, of `CaseCheck.tumour_size`."""
    cases: tuple[CaseCheck, ...]
    intensities: dict[str, tuple[float, ...]]
    """By split: share of pixels in `BINS` equal bins of [-1, 1], the mean over its cases."""
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Return whether nothing found is a problem."""
        return not any(finding.problem for finding in self.findings)

    def side(self, split: Split) -> tuple[CaseCheck, ...]:
        """Return the cases of one side of the split."""
        return tuple(case for case in self.cases if case.split == split)

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``check.json``."""
        return {"sound": self.sound, **asdict(self)}


def check_store(store: SiteStore) -> Check:
    """Return what is in ``store``, and what looks wrong."""
    sides = {c.case_id: name for name in SPLITS for c in store.split(name)}
    measured = [_Measured.of(store, case) for case in store.info.cases]
    pairs = _pairs(store, measured)
    alike = Counter(name for pair in pairs for name in pair)
    unit = _size_unit(store)
    cases = tuple(
        CaseCheck(
            case_id=m.record.case_id,
            split=sides[m.record.case_id],
            category=m.record.category,
            shape=m.record.shape,
            spacing=m.record.spacing,
            tumour_share=m.record.tumour_voxels / int(np.prod(m.record.shape)),
            tumour_size=_tumour_size(m.record, unit),
            edge_gain=None if m.scores is None else best_place(m.scores).gain,
            near_duplicates=alike[m.record.case_id],
        )
        for m in measured
    )
    return Check(
        site=store.site,
        modality=store.modality,
        organ=store.organ,
        size_unit=unit,
        cases=cases,
        intensities=_intensities(measured, sides),
        findings=(*_findings(measured, pairs, sides), *_place_findings(store)),
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    record: CaseRecord
    histogram: np.ndarray
    signature: np.ndarray
    scores: np.ndarray | None
    blank: bool
    inverted: bool
    writing: bool
    changed: bool

    @classmethod
    def of(cls, store: SiteStore, record: CaseRecord) -> _Measured:
        image, label = store.image(record.case_id), store.label(record.case_id)
        values = normalise(image, record.intensity)
        counts = np.histogram(values, bins=BINS, range=(-1, 1))[0]
        picture, mask = shown_slice(record, values, label)
        middle = picture
        if record.slice_axis is not None:
            middle = values.take(values.shape[record.slice_axis] // 2, axis=record.slice_axis)
        return cls(
            record,
            counts / counts.sum(),
            # Of the very pictures that groups were made of, so that a new store has no pair apart.
            signature(image if record.slice_axis is None else middle),
            step_map(picture, mask) if record.has_tumour else None,
            bool((image == image.flat[0]).all()),
            _looks_inverted(label),
            _shows_writing(store, record, np.asarray(values)),
            arrays_digest(image, label) != record.arrays_sha256,
        )


def shown_slice(
    record: CaseRecord, image: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slice with most tumour, else the middle one; a picture is its own slice."""
    axis = record.slice_axis
    if axis is None:
        return image, label
    sums = label.sum(axis=tuple(a for a in range(label.ndim) if a != axis), dtype=np.int64)
    index = int(sums.argmax()) if sums.any() else label.shape[axis] // 2
    return image.take(index, axis=axis), label.take(index, axis=axis)


def _shows_writing(store: SiteStore, record: CaseRecord, values: np.ndarray) -> bool:
    """Return whether a picture, or any picture of a run or of ultrasound, shows writing."""
    upright = record.affine is None
    if record.slice_axis is None:
        return shows_writing(values, upright=upright)
    if not upright and store.modality != "US":
        return False
    # Of a volume nobody knows any more along which axis its pictures were taken; a plane of few
    # slices is none of them.
    axes = [record.slice_axis] + [
        axis
        for axis in range(values.ndim)
        if not upright and axis != record.slice_axis and values.shape[record.slice_axis] > LETTER[1]
    ]
    return any(
        shows_writing(one, upright=upright) for axis in axes for one in np.moveaxis(values, axis, 0)
    )


def _looks_inverted(label: np.ndarray) -> bool:
    if float(label.mean()) > INVERTED_SHARE:
        return True
    frame = np.ones(label.shape, bool)
    frame[tuple(slice(1, -1) for _ in label.shape)] = False
    return float(label[frame].mean()) > FRAME_SHARE


def _pairs(store: SiteStore, measured: list[_Measured]) -> list[tuple[str, str]]:
    signatures = np.stack([m.signature for m in measured])
    flat = all(m.record.slice_axis is None for m in measured)
    found = similar_pairs(signatures) if flat else similar_pairs(signatures, VOLUME_THRESHOLD)
    names = [m.record.case_id for m in measured]
    # Volumes of one patient may well be alike; they are on one side anyway.
    return [
        (names[i], names[j])
        for i, j, _ in found
        if flat or store.cases[names[i]].group != store.cases[names[j]].group
    ]


def _size_unit(store: SiteStore) -> str:
    flat = any(len(c.shape) == 2 for c in store.info.cases)
    if any(c.spacing_unit == "px" for c in store.info.cases):
        return "px" if flat else "voxels"
    return "mm2" if flat else "ml"


def _tumour_size(record: CaseRecord, unit: str) -> float:
    of_one = float(np.prod(record.spacing))
    scale = {"ml": of_one / 1000, "mm2": of_one}.get(unit, 1.0)  # 1000 mm3 are 1 ml
    return round(record.tumour_voxels * scale, 6)


def _intensities(
    measured: list[_Measured], sides: dict[str, Split]
) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for name in SPLITS:
        histograms = [m.histogram for m in measured if sides[m.record.case_id] == name]
        if histograms:
            found[name] = tuple(round(float(v), 6) for v in np.mean(histograms, axis=0))
    return found


def _findings(
    measured: list[_Measured], pairs: list[tuple[str, str]], sides: dict[str, Split]
) -> list[Finding]:
    found = []
    changed = tuple(m.record.case_id for m in measured if m.changed)
    if changed:
        text = "arrays are not those that were prepared; prepare the store again from its source"
        found.append(Finding("changed", text, changed, problem=True))
    across = sorted({name for a, b in pairs if sides[a] != sides[b] for name in (a, b)})
    if across:
        text = "near-duplicates are on two sides of the split, so scores would be too good"
        found.append(Finding("leak", text, tuple(across), problem=True))
    if not any(m.record.has_tumour for m in measured):
        text = "no case shows a tumour; the masks, or the label values, may be the wrong ones"
        found.append(Finding("no-tumour", text, (), problem=False))
    blank = tuple(m.record.case_id for m in measured if m.blank)
    if blank:
        text = "the image has one value everywhere; it may not have been exported whole"
        found.append(Finding("blank", text, blank, problem=False))
    inverted = tuple(m.record.case_id for m in measured if m.inverted)
    if inverted:
        text = "masks cover most of the image or of its frame; they may be inverted"
        found.append(Finding("inverted", text, inverted, problem=False))
    writing = tuple(m.record.case_id for m in measured if m.writing)
    if writing:
        text = (
            "writing is burned into the picture, perhaps a name or a date: look at it, or prepare "
            "the store again with --blank-text"
        )
        found.append(Finding("writing", text, writing, problem=False))
    for doubt in dict.fromkeys(m.record.doubt for m in measured if m.record.doubt):
        names = tuple(m.record.case_id for m in measured if m.record.doubt == doubt)
        text = (
            f"{doubt}: slices are missing, or the scan was made with gaps; compare the series with "
            "the archive"
        )
        found.append(Finding("slices", text, names, problem=False))
    return found + _shift_findings(measured)


def _shift_findings(measured: list[_Measured]) -> list[Finding]:
    scored = [(m.record.case_id, m.scores) for m in measured if m.scores is not None]
    found = []
    if len(scored) >= FEW:
        place = best_place(np.mean([s / max(s.mean(), 1e-9) for _, s in scored], axis=0))
        if place.gain > STORE_GAIN:
            down, right = (round(100 * share, 1) for share in place.shift)
            text = (
                f"masks fit their images {place.gain:.2f} times better when moved by {down} % of "
                f"the longer side along the first axis and {right} % along the second"
            )
            found.append(Finding("shifted", text, tuple(c for c, _ in scored), problem=False))
    apart = tuple(c for c, s in scored if best_place(s).gain > CASE_GAIN)
    if apart:
        reach = round(100 * REACH / SIDE)
        text = (
            f"the image has a far stronger edge within {reach} % of the outline; "
            "look whether these masks lie well"
        )
        found.append(Finding("edge-elsewhere", text, apart, problem=False))
    return found


def _place_findings(store: SiteStore) -> list[Finding]:
    folds = min(PLACE_FOLDS, len({case.group for case in store.info.cases}))
    if folds < FEWEST_FOLDS:
        return []
    shares = {
        case.case_id: tumour_share(store.label(case.case_id), case.slice_axis, PRIOR_SIZE).astype(
            np.float32
        )
        for case in store.info.cases
    }
    found: list[float] = []
    for fold in range(folds):
        splits = in_fold(store, folds, fold).splits
        mask = best_mask(partial(iter, [shares[name] for name in splits.train]), PRIOR_SIZE)
        found += [mask_dice(mask, shares[name]) for name in splits.test if shares[name].any()]
    if not found or float(np.mean(found)) < PLACED:
        return []
    text = (
        "one mask for all images, where tumours lie in other cases, has a Dice of "
        f"{np.mean(found):.2f} in the mean of {len(found)}: images are cropped around tumours, or "
        "made with the lesion in the middle. Hold a model's Dice against that"
    )
    return [Finding("placed", text, (), problem=False)]
