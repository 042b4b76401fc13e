"""Rows of the scores that a site sends: what the server checks of each, and of all together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from flames.federation.network.aggregates import MOST_RECORDS, Aggregate
from flames.federation.network.messages import MessageError
from flames.federation.network.said import Number, Part, Seconds, Share, Size, Word, place
from flames.metrics.calibration import BINS

MOST_ROWS = 100_000
"""Rows of a table in one message."""
ROUNDING = 1e-3
"""Of a sum of probabilities."""
PartT = TypeVar("PartT", bound=Part)


class CaseRow(Part):
    """One model on one test case: a row of ``cases.csv``, in its columns' order."""

    model: Word
    model_kind: Literal["server", "personal"]
    site: Word
    modality: Word
    organ: Word
    hospital: Word | None
    case_id: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)
    group: Word
    label_voxels: int = Field(ge=0, le=10**12)
    prediction_voxels: int = Field(ge=0, le=10**12)
    dice: Share | None
    iou: Share | None
    hd95: Size | None
    nsd: Share | None
    distance_unit: Literal["mm", "px"]
    nsd_tolerance: Size
    volume_error: Number
    volume_unit: Literal["ml", "mm2", "px", "voxels"]
    presence_score: Share
    tumour_present: int = Field(ge=0, le=1)
    tumour_predicted: int = Field(ge=0, le=1)


class BinRow(Part):
    """One bin of a model's reliability: a row of ``calibration.csv``."""

    model: Word
    site: Word
    bin: int = Field(ge=0, lt=BINS)
    pixels: int = Field(ge=0, le=10**15)
    probability: float = Field(ge=0, le=1e15)
    tumour: int = Field(ge=0, le=10**15)

    @model_validator(mode="after")
    def _of_its_pixels(self) -> BinRow:
        if self.tumour > self.pixels or self.probability > self.pixels * (1 + ROUNDING) + ROUNDING:
            raise ValueError("more tumour than pixels")
        return self


class _Spent(Part):
    seconds: Seconds


@dataclass(frozen=True)
class Scorer:
    """Whose scores these are, by the consortium's record."""

    site: str
    modality: str
    organ: str
    group: str | None
    """The server model that serves it, or None."""
    test_cases: int
    """That it has, as it said when it joined: so many each model is scored on at most."""

    @property
    def models(self) -> dict[str, str]:
        """Return the kind of each model that it may have scored, by name."""
        own = {f"personal:{self.site}": "personal"}
        return own if self.group is None else own | {f"server:{self.group}": "server"}


def check_scores(content: Mapping[str, Any], scorer: Scorer) -> dict[str, Any]:
    """Return what a site sent of its scores, checked: as it is kept.

    Args:
        content: ``rows`` of ``cases.csv`` or ``aggregates`` of them, ``calibration``, ``seconds``.
        scorer: Whose.

    Raises:
        MessageError: Something has another form, cannot be, or is not of this site.
    """
    rows = _table(CaseRow, content.get("rows"), MOST_ROWS, "scores")
    bins = _table(BinRow, content.get("calibration"), MOST_ROWS, "reliability")
    means = _table(Aggregate, content.get("aggregates", []), MOST_RECORDS, "mean scores")
    parts: list[Part] = [*rows, *bins, *means]
    for part in parts:
        _check_owner(part, scorer)
    _check_once("a case", ((row.model, row.case_id) for row in rows))
    _check_once("a bin", ((row.model, row.bin) for row in bins))
    _check_once("a model", (record.model for record in means))
    if {row.model for row in rows} & {record.model for record in means}:
        raise MessageError("its scores hold both rows and a mean of one model")
    _check_most([row.model for row in rows], means, scorer)
    try:
        spent = _Spent(seconds=content.get("seconds"))  # type: ignore[arg-type]
    except ValidationError as error:
        raise MessageError("its seconds cannot be") from error
    tables: dict[str, list[Any]] = {"rows": rows, "aggregates": means, "calibration": bins}
    dumped = {name: [row.model_dump() for row in table] for name, table in tables.items()}
    return {**dumped, "seconds": spent.seconds}


def _table(kind: type[PartT], content: Any, most: int, what: str) -> list[PartT]:
    if not isinstance(content, list) or len(content) > most:
        raise MessageError(f"its {what} are no rows")
    found = []
    for number, row in enumerate(content):
        try:
            found.append(kind.model_validate(row))
        except ValidationError as error:
            where = f"{place(error) or 'a column'} of row {number}"
            raise MessageError(f"its {what} cannot be, at {where}") from error
    return found


def _check_owner(part: Any, scorer: Scorer) -> None:
    kinds = scorer.models
    kind = getattr(part, "model_kind", kinds.get(part.model))
    if part.site != scorer.site or part.model not in kinds or kinds[part.model] != kind:
        raise MessageError("a row of its scores is not of this site and its models")
    known = (scorer.modality, scorer.organ)
    if (getattr(part, "modality", known[0]), getattr(part, "organ", known[1])) != known:
        raise MessageError("a row of its scores is of another modality or organ than the site")


def _check_most(scored: list[str], means: Iterable[Aggregate], scorer: Scorer) -> None:
    counts = [scored.count(model) for model in scorer.models]
    counts += [record.cases for record in means]
    if max(counts) > scorer.test_cases:
        raise MessageError(f"its scores are of more than its {scorer.test_cases} test cases")


def _check_once(what: str, keys: Iterable[object]) -> None:
    known = list(keys)
    if len(set(known)) != len(known):
        raise MessageError(f"its scores name {what} twice")
