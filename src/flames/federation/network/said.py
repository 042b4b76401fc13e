"""What a site says, made fit to keep: words without control characters, numbers within bounds."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

MOST = 10_000_000
"""Cases, rounds or steps that a site may speak of."""
LONGEST = 200
"""Characters of a name."""
HIDDEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's control characters, halves of pairs, and breaks of lines and paragraphs."""
FORMULA = ("=", "+", "-", "@")
"""What a table's program would take for a formula at the start of a cell."""


def plain(said: Any, most: int) -> str:
    r"""Return words of a site that cannot steer a terminal, cut to ``most`` characters.

    >>> plain("no \x1b[31mdisk\n", 9)
    'no  [31md'
    """
    text = str(said)[:most]
    return "".join(sign if sign.isprintable() else " " for sign in text)


def place(error: ValidationError) -> str:
    """Return where the first thing is that cannot be, such as ``seconds.train``."""
    found = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
    return plain(found, LONGEST)


def _harmless(word: str) -> str:
    if word.startswith(FORMULA) or any(unicodedata.category(sign) in HIDDEN for sign in word):
        raise ValueError("a formula, or control characters")
    return word


Word = Annotated[str, Field(max_length=LONGEST), AfterValidator(_harmless)]
"""A name that goes into files and tables."""
Count = Annotated[int, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Size = Annotated[float, Field(ge=0, le=1e12)]


class Part(BaseModel):
    """A table in a message: no other keys, no other types, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
