"""What a site says of itself before it takes part, and what the server checks of it."""

from __future__ import annotations

import hashlib
import math
from importlib import metadata
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

import flames
from flames.config import Section
from flames.data.fingerprint import Fingerprint, fingerprint
from flames.data.store import (
    MORE_PATIENTS,
    SPLITS,
    Modality,
    SiteStore,
    Split,
    missing_sides,
)
from flames.errors import FlamesError
from flames.federation.exchange import Reply
from flames.federation.network.consortium import Member
from flames.federation.network.said import MOST, Count, Word
from flames.federation.network.tasks import PROTOCOL
from flames.federation.summary import about_store

Sides = Annotated[dict[Split, Count], Field(min_length=len(SPLITS))]
AS_IT_WAS = "bring it back as it was, or take part in a new run"
"""What to do with a store that changed while a run goes on."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SiteFacts(Section):
    """Counts and versions; no image, and case identifiers only where the site's policy allows."""

    protocol: Count
    flames: Word
    packages: Annotated[dict[Word, Word], Field(max_length=20)]
    config: Sha256
    """SHA-256 of the run's configuration as the site received it."""
    modality: Modality
    organ: Word
    made_up: bool
    cases: Sides
    """Numbers of cases by side of the split."""
    tumour_free: Sides
    cases_digest: Sha256
    """Digest of the store; it tells nothing of its cases and changes when one does."""
    fingerprint: Fingerprint
    """What its training images are like: counts and percentiles, nothing of one case."""
    splits: dict[Split, list[Word]] | None = Field(None)
    """Case identifiers by side, or None."""

    @field_validator("fingerprint")
    @classmethod
    def _of_real_images(cls, value: Fingerprint) -> Fingerprint:
        ranges = (value.in_plane, value.between, value.brightness, value.contrast, value.ct_window)
        numbers = [
            float(number) for part in (*ranges, *(value.sides or ())) for number in part or ()
        ]
        if not all(math.isfinite(number) and abs(number) <= MOST for number in numbers):
            raise ValueError("a range that cannot be")
        if not 0 <= value.cases <= MOST or value.dimensions not in (2, 3):
            raise ValueError("numbers of cases or dimensions that cannot be")
        return value

    @model_validator(mode="after")
    def _no_more_without_tumour(self) -> SiteFacts:
        if any(self.tumour_free[side] > self.cases[side] for side in SPLITS):
            raise ValueError("more cases without tumour than cases")
        return self

    @model_validator(mode="after")
    def _one_count_everywhere(self) -> SiteFacts:
        if self.fingerprint.cases != self.cases["train"]:
            raise ValueError("a fingerprint of another number of training cases")
        if self.splits is not None and any(
            len(set(self.splits.get(side, []))) != self.cases[side] for side in SPLITS
        ):
            raise ValueError("other numbers of names than of cases")
        return self

    def is_of_another_store(self, known: SiteFacts) -> bool:
        """Return whether the site's store is not that of which it said ``known`` before.

        Names of cases are compared where it said them both times.
        """
        same = ("cases_digest", "cases", "tumour_free")
        if any(getattr(self, key) != getattr(known, key) for key in same):
            return True
        now, before = self.splits, known.splits
        return None not in (now, before) and _sides(now) != _sides(before)

    @property
    def about(self) -> dict[str, Any]:
        """Return what a run's summary says of the site."""
        keys = ("modality", "organ", "made_up", "cases", "tumour_free")
        return {key: getattr(self, key) for key in keys}


def _sides(splits: dict[Split, list[Word]] | None) -> dict[str, set[str]]:
    return {side: set(cases) for side, cases in (splits or {}).items()}


def facts_of(store: SiteStore, config_text: str, *, show_cases: bool) -> SiteFacts:
    """Return what a site says of its store and of itself."""
    return SiteFacts(
        protocol=PROTOCOL,
        flames=flames.__version__,
        packages={name: metadata.version(name) for name in ("torch", "monai", "numpy")},
        config=digest(config_text),
        **about_store(store),
        cases_digest=store.splits.cases_digest,
        fingerprint=fingerprint(store),
        splits={side: [c.case_id for c in store.split(side)] for side in SPLITS}
        if show_cases
        else None,
    )


def mismatch(
    facts: SiteFacts, *, config: str, member: Member, known: SiteFacts | None
) -> str | None:
    """Return why a site cannot take part in a run, or None.

    Args:
        facts: What the site says.
        config: SHA-256 of the configuration at the server.
        member: What the consortium's record says of the site.
        known: What it said when it took part before.
    """
    if facts.protocol != PROTOCOL or facts.flames != flames.__version__:
        return (
            f"it runs flames {facts.flames}, the server {flames.__version__}: "
            "install the same version"
        )
    if facts.config != config:
        return "its copy of the configuration differs from the server's"
    stands_for = (member.modality, member.organ)
    if (facts.modality, facts.organ) != stands_for:
        return (
            f"its store is {facts.modality} of {facts.organ}, the consortium's record says "
            f"{member.modality} of {member.organ}"
        )
    if (facts.fingerprint.modality, facts.fingerprint.organ) != stands_for:
        return "its fingerprint is of other images than its store"
    if known is not None and facts.is_of_another_store(known):
        return f"its store changed since it took part in this run; {AS_IT_WAS}"
    missing = missing_sides(facts.cases)
    if missing:
        return f"its store has {missing}: {MORE_PATIENTS}"
    return too_many(facts, member)


def too_many(facts: SiteFacts, member: Member) -> str | None:
    """Return why a site has more training cases than was agreed with it, or None."""
    said, agreed = facts.cases["train"], member.cases
    if agreed is None or said <= agreed:
        return None
    return (
        f"it says it has {said} training cases, the consortium's record says {agreed} at most: "
        "agree on a number, then correct its store, or the record with 'flames consortium cases'"
    )


def check_counts(reply: Reply, facts: SiteFacts, server_round: int) -> None:
    """Refuse a reply whose counts are not those of its site and round.

    Raises:
        FlamesError: It counts other cases than the site has, or a round that was not yet.
    """
    if (reply.num_examples, reply.validation_cases) != (facts.cases["train"], facts.cases["val"]):
        raise FlamesError(f"{reply.client} counts other cases than when it joined")
    if reply.best_round > server_round:
        raise FlamesError(
            f"{reply.client} keeps weights of round {reply.best_round}, still to come"
        )


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
