"""A trained model looks at files, one in memory at a time, and writes what it found."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from flames.data.augment import mirror_axis
from flames.data.blocks import slice_first_spacing
from flames.data.fingerprint import departures
from flames.data.inputs import Input
from flames.data.normalise import CT_WINDOW, intensity_window, normalise
from flames.data.scans import Scan, read_scan, read_series
from flames.data.store import Modality
from flames.errors import FlamesError, NotWritten, nearest
from flames.inference.lesions import Lesion, find_lesions
from flames.inference.outputs import WRITERS, Finding, MadeBy, check_place, default_format
from flames.inference.predict import predict_slices
from flames.inference.score import TrainedModel, refuse_flat
from flames.models.precision import Precision
from flames.models.student import tell

CASE_COLUMNS = (
    "name",
    "source",
    "tumour_found",
    "presence_score",
    "presence_probability",
    "lesions",
    "size",
    "size_unit",
    "departures",
    "doubt",
    "files",
    "seconds",
    "error",
)
LESION_COLUMNS = ("name", *Lesion.__dataclass_fields__)


@dataclass(frozen=True)
class PredictOptions:
    """How images are looked at, and what is written."""

    formats: tuple[str, ...] = ()
    """Names of `WRITERS`; none means the one nearest to each source."""
    probabilities: bool = False
    flip: bool = True
    """Average with the left-right mirrored image."""
    force: bool = False
    """Also look at images that can only be of another modality than the model's."""
    modality: Modality | None = None
    """What the person says that the images are; needed by a model for all modalities."""
    channel: int | None = None
    batch_size: int = 16


@dataclass(frozen=True)
class Looked:
    """One line of ``predictions.csv``."""

    row: dict[str, Any]
    error: FlamesError | None = None


def predict_files(
    model: TrainedModel,
    inputs: Sequence[Input],
    out: Path,
    *,
    precision: Precision,
    options: PredictOptions,
) -> Iterator[Looked]:
    """Yield each input as it is done; write masks, ``predictions.csv`` and ``lesions.csv``.

    An input that cannot be read gets a line that says so, and the next one is taken. So does one
    that has no place in a format that is asked for; the line also says what was found in it where
    it has a place in another.

    Raises:
        FlamesError: ``out`` holds something, a format is not known, the images are of another
            modality than the model, or the disk is full.
    """
    _check(model, out, options)
    made_by = MadeBy(model.name, model.version, probabilities=options.probabilities)
    with (
        _Table(out / "predictions.csv", CASE_COLUMNS) as cases,
        _Table(out / "lesions.csv", LESION_COLUMNS) as lesions,
    ):
        for one in inputs:
            try:
                finding = predict_file(model, one, precision=precision, options=options)
            except FlamesError as caught:
                error = one.named(caught)
                row = {"name": one.name, "source": one.source, "error": error.found}
                cases.add(row)
                yield Looked(row, error)
                continue
            files, refused = _write(finding, out, made_by, options.formats)
            row = _row(finding, _listed(files, out), refused)
            cases.add(row)
            for lesion in finding.lesions:
                lesions.add({"name": one.name, **lesion.as_row()})
            yield Looked(row, refused)


def predict_file(
    model: TrainedModel, one: Input, *, precision: Precision, options: PredictOptions
) -> Finding:
    """Return what ``model`` finds in one file.

    Raises:
        FlamesError: The file is damaged or of another modality than the model, or has no place in
            any format that is asked for.
    """
    started = time.perf_counter()
    scan = read_series(one.paths) if one.dicom else read_scan(one.path, channel=options.channel)
    modality = _modality(model, scan, one, options)
    if model.plan is not None and scan.slice_axis is None:
        raise refuse_flat(model, str(one.path))
    _check_places(scan, one, options)
    window = intensity_window(scan.image, modality, ct_window(model))
    slices = scan.slices(normalise(scan.image, window))
    tell(model.network, modality)
    native, presence = predict_slices(
        model.network,
        slices,
        image_size=model.image_size,
        precision=precision,
        batch_size=options.batch_size,
        mirror=mirror_axis(modality) if options.flip else None,
        plan=model.plan,
        spacing=slice_first_spacing(scan.spacing, scan.slice_axis, known=scan.spacing_known),
    )
    probabilities = np.ascontiguousarray(scan.unslice(native))
    mask = model.decide(probabilities, presence)
    return Finding(
        input=one,
        scan=scan,
        probabilities=probabilities,
        mask=mask,
        presence_score=presence,
        presence_probability=model.presence.probability(presence),
        lesions=tuple(find_lesions(mask, probabilities, scan)),
        departures=tuple(_departures(model, scan, modality)),
        seconds=time.perf_counter() - started,
    )


def _departures(model: TrainedModel, scan: Scan, modality: Modality) -> list[str]:
    sites = [site for site in model.trained_on if site.modality == modality]
    # Pages and frames without a place are single images to a model that learned from such.
    apart = scan.affine is None and any(site.dimensions == 2 for site in sites)
    return departures(
        scan.image,
        spacing=scan.spacing[-2:] if apart else scan.spacing,
        spacing_known=scan.spacing_known,
        slice_axis=None if apart else scan.slice_axis,
        sites=sites,
    )


def _modality(model: TrainedModel, scan: Scan, one: Input, options: PredictOptions) -> Modality:
    """Return the modality to normalise by; refuse an image that can only be another."""
    said = options.modality or scan.modality
    if model.modality == "all":
        if said is None:
            raise FlamesError(
                f"model {model.name} serves every modality, and {one.path} does not say its own",
                "say it with --modality",
            )
        if scan.modality not in (None, said) and not options.force:
            raise FlamesError(
                f"{one.path} is {scan.modality}, --modality says {said}",
                f"look at images of {scan.modality} in a call of their own, or add --force if you "
                "know better",
            )
        return said
    if scan.modality not in (None, model.modality) and not options.force:
        raise FlamesError(
            f"{one.path} is {scan.modality}, model {model.name} was trained on {model.modality}",
            f"choose a model of {scan.modality}, or add --force if you know better",
        )
    return model.modality  # type: ignore[return-value]


def _check_places(scan: Scan, one: Input, options: PredictOptions) -> None:
    """Refuse an image for which no format that is asked for has a place: nothing would come of it.

    One that has a place in some of them is written in these.
    """
    refused = []
    for name in options.formats:
        try:
            check_place(name, scan, one.path)
        except FlamesError as error:
            refused.append(error)
    if refused and len(refused) == len(options.formats):
        raise refused[0]


def ct_window(model: TrainedModel) -> tuple[float, float]:
    """Return the window of the training site with the most CT cases."""
    known = [s for s in model.trained_on if s.ct_window is not None]
    largest = max(known, key=lambda s: s.cases, default=None)
    return CT_WINDOW if largest is None or largest.ct_window is None else largest.ct_window


def _check(model: TrainedModel, out: Path, options: PredictOptions) -> None:
    for name in options.formats:
        if name not in WRITERS:
            raise FlamesError(f"there is no output format {name!r}", nearest(name, WRITERS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FlamesError(f"{out} is not an empty folder", "name a new -o")
    said = options.modality
    if said is not None and model.modality not in ("all", said) and not options.force:
        raise FlamesError(
            f"model {model.name} was trained on {model.modality}, not {said}",
            f"choose a model of {said}, or add --force if you know better",
        )


def _write(
    finding: Finding, out: Path, made_by: MadeBy, formats: Sequence[str]
) -> tuple[list[Path], FlamesError | None]:
    """Write every format that has a place; return the files, and why one of them has none."""
    files: list[Path] = []
    refused: FlamesError | None = None
    for name in formats or (default_format(finding.scan),):
        try:
            files += WRITERS[name](finding, out, made_by)
        except NotWritten:
            raise
        except FlamesError as error:
            refused = refused or finding.input.named(error)
    return files, refused


def _listed(files: Sequence[Path], out: Path) -> str:
    names = [file.relative_to(out).as_posix() for file in files]
    return " ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _row(finding: Finding, files: str, refused: FlamesError | None) -> dict[str, Any]:
    sizes = [lesion.size for lesion in finding.lesions]
    probability = finding.presence_probability
    unit = finding.lesions[0].size_unit if finding.lesions else ""
    return {
        "name": finding.input.name,
        "source": finding.input.source,
        "tumour_found": int(bool(finding.mask.any())),
        "presence_score": round(finding.presence_score, 4),
        "presence_probability": "" if probability is None else round(probability, 4),
        "lesions": len(finding.lesions),
        "size": round(sum(sizes), 6) if sizes else 0,
        "size_unit": unit,
        "departures": "; ".join(finding.departures),
        "doubt": finding.scan.doubt or "",
        "files": files,
        "seconds": round(finding.seconds, 3),
        "error": "" if refused is None else refused.found,
    }


class _Table:
    """A CSV file that grows line by line under another name, and is renamed when whole."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        self.partial = path.with_name(f".{path.name}.partial")
        self.file: TextIO | None = None

    def __enter__(self) -> _Table:
        self._guard(self._open)
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._guard(lambda: self._write(row))

    def __exit__(self, *_error: object) -> None:
        if self.file is not None:
            self.file.close()
        # What was done before a stop is worth keeping: every line is whole.
        with suppress(OSError):
            self.partial.replace(self.path)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.partial.open("w", encoding="utf-8", newline="")
        self.writer = csv.DictWriter(self.file, self.columns, lineterminator="\n")
        self.writer.writeheader()

    def _write(self, row: dict[str, Any]) -> None:
        assert self.file is not None
        self.writer.writerow(row)
        self.file.flush()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            raise FlamesError(
                f"cannot write {self.path}: {error.strerror or error}",
                "free some space or choose another -o",
            ) from error
