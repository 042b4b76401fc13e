"""Personalised minus server model, paired by test case: what two separate intervals cannot say."""

from __future__ import annotations

from typing import Any

from flames.metrics.paired import paired_difference, paired_difference_over_sites
from flames.metrics.tables import groups_by_site, number
from flames.reports.records import Records

Scores = dict[str, dict[str, float | None]]


def site_differences(records: Records) -> dict[str, dict[str, Any]]:
    """Return site → the mean difference in Dice with its interval, where both models were scored.

    Patients are swapped, with all their cases; the run's seed decides the tosses.
    """
    personal, server = _dice(records, "personal"), _dice(records, "server")
    groups = groups_by_site(records.cases)
    found = {
        site: paired_difference(
            personal[site],
            server[site],
            seed=_seed(records),
            groups=groups[site],
            resamples=records.resamples,
        )
        for site in sorted(set(personal) & set(server))
    }
    return {site: difference.as_dict() for site, difference in found.items() if difference.n}


def mean_difference(records: Records) -> dict[str, Any]:
    """Return the mean over sites of the difference in Dice; undefined without a common case."""
    return paired_difference_over_sites(
        _dice(records, "personal"),
        _dice(records, "server"),
        seed=_seed(records),
        groups_by_site=groups_by_site(records.cases),
        resamples=records.resamples,
    ).as_dict()


def _dice(records: Records, kind: str) -> Scores:
    """Return site → case → Dice of the model of ``kind`` that the table of sites shows."""
    models = {site: records.score(site, kind).get("model") for site in records.sites()}
    found: Scores = {}
    for row in records.cases:
        if row["model"] == models.get(row["site"]):
            found.setdefault(row["site"], {})[row["case_id"]] = number(row["dice"])
    return found


def _seed(records: Records) -> int:
    seed = records.setting("seed")
    return seed if isinstance(seed, int) else 0
