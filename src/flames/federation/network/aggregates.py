"""Scores of a site that gives no single case: what the server checks of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from flames.federation.network.said import MOST, Count, Number, Part, Share, Size, Word

MOST_RECORDS = 100


class Estimate(Part):
    """A mean over a site's test cases, with its interval."""

    mean: Number | None
    low: Number | None
    high: Number | None
    n: Count

    @model_validator(mode="after")
    def _ends_around_the_mean(self) -> Estimate:
        if self.mean is None or self.low is None or self.high is None:
            if (self.mean, self.low, self.high, self.n) != (None, None, None, 0):
                raise ValueError("a mean without an interval, or the other way round")
        elif not self.low <= self.mean <= self.high or not self.n:
            raise ValueError("a mean outside its interval, or over no case")
        return self


class Presence(Part):
    """How well a model tells whether there is tumour."""

    auc: Share | None
    sensitivity: Share | None
    specificity: Share | None
    with_tumour: Count
    without_tumour: Count


class Aggregate(Part):
    """One model on one site's test cases, as ``summary.json`` has it."""

    model: Word
    model_kind: Literal["server", "personal"]
    site: Word
    modality: Word
    organ: Word
    cases: int = Field(ge=1, le=MOST)
    dice: Estimate
    iou: Estimate
    hd95: Estimate
    nsd: Estimate
    volume_error: Estimate
    distance_unit: Literal["mm", "px"] | None
    nsd_tolerance: Size | None
    volume_unit: Literal["ml", "mm2", "px", "voxels"] | None
    presence: Presence
    empty_and_clear: Count
    missed: Count
    false_alarm: Count

    @model_validator(mode="after")
    def _over_its_cases(self) -> Aggregate:
        measures = (self.dice, self.iou, self.hd95, self.nsd, self.volume_error)
        counts = [measure.n for measure in measures]
        counts.append(self.presence.with_tumour + self.presence.without_tumour)
        counts.append(self.empty_and_clear + self.missed + self.false_alarm)
        if max(counts) > self.cases:
            raise ValueError("a count of more cases than there are")
        return self

    @field_validator("dice", "iou", "nsd")
    @classmethod
    def _from_0_to_1(cls, value: Estimate) -> Estimate:
        if (
            value.low is not None
            and value.high is not None
            and not 0 <= value.low <= value.high <= 1
        ):
            raise ValueError("a mean of shares outside 0 to 1")
        return value
