"""Scores of a site that gives no single case: what the server checks of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flames.federation.network.messages import MessageError

MOST_RECORDS = 100


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Estimate(_Part):
    """A mean over a site's test cases, with its interval."""

    mean: float | None
    low: float | None
    high: float | None
    n: int = Field(ge=0)

    @model_validator(mode="after")
    def _ends_around_the_mean(self) -> Estimate:
        if self.mean is None or self.low is None or self.high is None:
            if (self.mean, self.low, self.high, self.n) != (None, None, None, 0):
                raise ValueError("a mean without an interval, or the other way round")
        elif not self.low <= self.mean <= self.high or not self.n:
            raise ValueError("a mean outside its interval, or over no case")
        return self


class Presence(_Part):
    """How well a model tells whether there is tumour."""

    auc: float | None = Field(ge=0, le=1)
    sensitivity: float | None = Field(ge=0, le=1)
    specificity: float | None = Field(ge=0, le=1)
    with_tumour: int = Field(ge=0)
    without_tumour: int = Field(ge=0)


class Aggregate(_Part):
    """One model on one site's test cases, as ``summary.json`` has it."""

    model: str = Field(pattern="^(server|personal):", max_length=200)
    model_kind: str = Field(pattern="^(server|personal)$")
    site: str
    modality: str = Field(max_length=20)
    organ: str = Field(max_length=200)
    cases: int = Field(ge=1)
    dice: Estimate
    iou: Estimate
    hd95: Estimate
    nsd: Estimate
    volume_error: Estimate
    distance_unit: str | None = Field(max_length=20)
    nsd_tolerance: float | None
    volume_unit: str | None = Field(max_length=20)
    presence: Presence
    empty_and_clear: int = Field(ge=0)
    missed: int = Field(ge=0)
    false_alarm: int = Field(ge=0)


def check_aggregates(site: str, content: Any) -> list[dict[str, Any]]:
    """Return the records of a site's scores, checked.

    Raises:
        MessageError: One has other fields, or values that cannot be.
    """
    if not isinstance(content, list) or len(content) > MOST_RECORDS:
        raise MessageError("its mean scores are no records")
    try:
        records = [Aggregate.model_validate(record) for record in content]
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise MessageError(f"its mean scores cannot be, at {place or 'a record'}") from error
    if any(record.site != site for record in records):
        raise MessageError("a record of its scores is not of this site")
    return [record.model_dump() for record in records]
