"""What a site says of itself before it takes part, and what the server checks of it."""

from __future__ import annotations

import hashlib
from importlib import metadata
from typing import Any

from pydantic import Field

import flames
from flames.config import Section
from flames.data.fingerprint import Fingerprint, fingerprint
from flames.data.store import SPLITS, SiteStore
from flames.federation.network.tasks import PROTOCOL
from flames.federation.summary import about_store


class SiteFacts(Section):
    """Counts and versions; no image, and case identifiers only where the site's policy allows."""

    protocol: int
    flames: str
    packages: dict[str, str]
    config: str
    """SHA-256 of the run's configuration as the site received it."""
    modality: str
    organ: str
    made_up: bool
    cases: dict[str, int]
    """Numbers of cases by side of the split."""
    tumour_free: dict[str, int]
    cases_digest: str
    """Digest of the store; it tells nothing of its cases and changes when one does."""
    fingerprint: Fingerprint
    """What its training images are like: counts and percentiles, nothing of one case."""
    splits: dict[str, list[str]] | None = Field(None)
    """Case identifiers by side, or None."""

    @property
    def about(self) -> dict[str, Any]:
        """Return what a run's summary says of the site."""
        keys = ("modality", "organ", "made_up", "cases", "tumour_free")
        return {key: getattr(self, key) for key in keys}


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
    facts: SiteFacts, *, config: str, modality: str, organ: str, known_digest: str | None
) -> str | None:
    """Return why a site cannot take part in a run, or None.

    Args:
        facts: What the site says.
        config: SHA-256 of the configuration at the server.
        modality: Of the site, by the consortium's record.
        organ: Of the site, by the consortium's record.
        known_digest: Of its store when it took part before.
    """
    if facts.protocol != PROTOCOL or facts.flames != flames.__version__:
        return (
            f"it runs flames {facts.flames}, the server {flames.__version__}: "
            "install the same version"
        )
    if facts.config != config:
        return "its copy of the configuration differs from the server's"
    if (facts.modality, facts.organ) != (modality, organ):
        return (
            f"its store is {facts.modality} of {facts.organ}, the consortium's record says "
            f"{modality} of {organ}"
        )
    if known_digest not in (None, facts.cases_digest):
        return "its store changed since it took part in this run"
    if not facts.cases.get("train"):
        return "its store has no training case"
    return None


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
