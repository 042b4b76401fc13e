"""What comes beside a site's weights, and signs of life: what the server checks of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from flames.errors import FlamesError
from flames.federation.exchange import Reply
from flames.federation.network.messages import MessageError
from flames.federation.network.said import (
    MOST,
    Count,
    Number,
    Part,
    Seconds,
    Share,
    Size,
    Word,
    place,
)
from flames.metrics.presence import PRESENCE_GRID

Way = Annotated[str, Field(pattern="^[a-z]{1,20}$")]
"""What a client tried, such as ``mixture``."""
Row = Annotated[list[Size], Field(min_length=6, max_length=6)]
GRID = len(PRESENCE_GRID)
ROUNDING = 1e-5
"""Of a sum of Dice."""


def _possible(curve: list[list[float]]) -> list[list[float]]:
    """Return a presence curve that some cases have; see `flames.metrics.presence.Curve`."""
    _, _, tumours, _, free, _ = curve[0]
    silenced = [(0.0, 0.0), *((row[3], row[5]) for row in curve)]
    rising = all(
        before[0] <= after[0] <= tumours and before[1] <= after[1] <= free
        for before, after in pairwise(silenced)
    )
    same = all((row[2], row[4]) == (tumours, free) for row in curve)
    defined = all(row[0] <= row[1] + ROUNDING and row[1] <= tumours + free for row in curve)
    if not (rising and same and defined and silenced[1] == silenced[0]):
        raise ValueError("a curve that no cases have")
    return curve


Curve = Annotated[list[Row], Field(min_length=GRID, max_length=GRID), AfterValidator(_possible)]
MOST_WAYS = 20


class _Reply(Part):
    """The fields of `Reply`, as they may be."""

    client: Word
    modality: Word
    num_examples: int = Field(ge=1, le=MOST)
    validation: Annotated[dict[Way, Share], Field(max_length=MOST_WAYS)]
    alpha: Share | None
    chosen: Way | None
    best: Share | None
    best_round: Count
    loss: Number | None
    learning_rate: Size
    seconds: Annotated[
        dict[Literal["train", "validate", "data"], Seconds], Field(min_length=3, max_length=3)
    ]
    validation_cases: Count
    curves: Annotated[dict[Way, Curve | None], Field(max_length=MOST_WAYS)]

    @model_validator(mode="after")
    def _over_its_own_cases(self) -> _Reply:
        for way, curve in self.curves.items():
            if curve and curve[0][2] + curve[0][4] > self.validation_cases:
                raise ValueError(f"the curve of {way} is over more cases than judged it")
        return self


class Progress(Part):
    """A sign of life."""

    round: Count | None = None
    done: Count = 0
    loss: Number | None = None


def as_reply(content: Any, *, client: str, modality: str) -> Reply:
    """Return the reply of a message, as the site that the consortium knows it comes from.

    Raises:
        FlamesError: A field is missing, unknown, or cannot be.
    """
    try:
        said = _Reply.model_validate(content)
    except ValidationError as error:
        where = place(error) or "all of it"
        raise MessageError(f"its reply holds what cannot be, at {where}") from error
    if said.modality != modality:
        raise FlamesError(
            f"{client} says it is {said.modality!r}, the consortium says {modality}",
            "start the site with the store of its own modality",
        )
    return Reply(**{**content, "client": client})


def as_progress(content: Any) -> Progress:
    """Return a sign of life.

    Raises:
        MessageError: It holds what cannot be.
    """
    try:
        return Progress.model_validate(content)
    except ValidationError as error:
        raise MessageError(f"a sign of life holds what cannot be, at {place(error)}") from error
