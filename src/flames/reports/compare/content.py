"""Finished runs become the numbers of a comparison, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flames.errors import FlamesError, nearest
from flames.metrics.comparison import (
    MEAN,
    Values,
    calibration_rows,
    case_values,
    harmed,
    paired_rows,
    presence_rows,
    site_scores,
    worst_site,
)
from flames.metrics.tables import groups_by_site, has_mean
from flames.reports.records import Records, load_records, made_again
from flames.reports.soundness import check_whole
from flames.runs import RunFolder

KINDS = ("personal", "server")
BASELINE = "local"
"""A site is harmed by a strategy that does worse there than training alone."""
PRIOR = "no image"
"""What a site's prior is called beside strategies: a mask that does not look at the image."""


@dataclass(frozen=True)
class Comparison:
    """Runs by strategy, in the order in which the strategies were named, each a seed and fold."""

    runs: dict[str, list[Records]]
    reference: str
    resamples: int
    prior: Sequence[dict[str, str]] = ()
    """Rows of every site's prior on the same cases; none where it was not scored."""

    @property
    def first(self) -> Records:
        """Return one run, for what all runs share."""
        return next(iter(self.runs.values()))[0]

    @cached_property
    def groups(self) -> Any:
        """Return site → case id → patient."""
        return groups_by_site(next(iter(self.tables.values()))[0])

    @cached_property
    def tables(self) -> dict[str, list[list[dict[str, str]]]]:
        """Return strategy → the rows of each seed's test cases, from all of its folds."""
        return {
            name: [[row for r in fold for row in r.cases] for fold in by_seed(runs).values()]
            for name, runs in self.runs.items()
        }

    @property
    def seed(self) -> int:
        """Return the seed of every draw."""
        return min(int(r.summary["seed"]) for runs in self.runs.values() for r in runs)

    @cached_property
    def sites(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each site, in the order of the tables."""
        return self.first.sites()

    @cached_property
    def dice(self) -> dict[str, dict[str, Values]]:
        """Return kind → strategy → site → case → Dice by seed."""
        return {kind: self._values("dice", kind) for kind in KINDS}

    @cached_property
    def nsd(self) -> dict[str, dict[str, Values]]:
        """Return the same of the normalised surface Dice."""
        return {kind: self._values("nsd", kind) for kind in KINDS}

    @cached_property
    def scores(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return kind → strategy → a row a site and their mean, of Dice."""
        return {
            kind: {name: self._scores(values) for name, values in found.items()}
            for kind, found in self.dice.items()
        }

    @cached_property
    def surface_scores(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return the same of the normalised surface Dice, which has no mean over other units."""
        rows = {
            kind: {name: self._scores(values) for name, values in found.items()}
            for kind, found in self.nsd.items()
        }
        table = next(iter(self.tables.values()))[0]
        parts = {site: [row for row in table if row["site"] == site] for site in self.groups}
        mixed = {
            site for site, part in (parts | {MEAN: table}).items() if not has_mean(part, "nsd")
        }
        for scores in (found for kind in rows.values() for found in kind.values()):
            for row in (row for row in scores if row["site"] in mixed):
                row |= {"mean": None, "low": None, "high": None}
        return rows

    @cached_property
    def paired(self) -> dict[str, list[dict[str, Any]]]:
        """Return kind → rows of strategy minus reference."""
        return {kind: self._paired(kind, self.reference) for kind in KINDS}

    @cached_property
    def prior_scores(self) -> list[dict[str, Any]]:
        """Return a row a site and their mean, of the Dice of the sites' priors; none without."""
        return self._scores(self._prior) if self.prior else []

    @cached_property
    def sight(self) -> list[dict[str, Any]]:
        """Return rows of the reference minus the sites' priors: what looking at images gives."""
        personal = self.dice["personal"].get(self.reference)
        if not self.prior or not personal:
            return []
        values = {self.reference: personal, PRIOR: self._prior}
        return paired_rows(
            values, self.groups, reference=PRIOR, seed=self.seed, resamples=self.resamples
        )

    @cached_property
    def harm(self) -> dict[str, dict[str, int]]:
        """Return how many sites each strategy harms against training alone; empty without it."""
        against = self._paired("personal", BASELINE)
        names = {row["strategy"] for row in against}
        return {name: harmed(against, name) for name in names}

    @cached_property
    def worst(self) -> dict[str, Any]:
        """Return each strategy's worst site and its row, by personal models."""
        return {name: worst_site(rows) for name, rows in self.scores["personal"].items()}

    @cached_property
    def presence(self) -> dict[str, list[dict[str, Any]]]:
        """Return each strategy's AUC, sensitivity and specificity by site and in the mean."""
        return {
            name: presence_rows(tables, model_kind="personal")
            for name, tables in self.tables.items()
        }

    @cached_property
    def calibration(self) -> dict[str, tuple[list[dict[str, Any]], np.ndarray | None]]:
        """Return each strategy's calibration errors and its pooled reliability table."""
        return {
            name: calibration_rows(
                [
                    [row for r in folds for row in r.run.load_calibration()]
                    for folds in by_seed(runs).values()
                ],
                model_kind="personal",
            )
            for name, runs in self.runs.items()
        }

    @cached_property
    def _prior(self) -> Values:
        return case_values([self.prior], "dice", model_kind="prior")

    def _values(self, measure: str, kind: str) -> dict[str, Values]:
        found = {
            name: case_values(tables, measure, model_kind=kind)
            for name, tables in self.tables.items()
        }
        return {name: values for name, values in found.items() if values}

    def _scores(self, values: Values) -> list[dict[str, Any]]:
        return site_scores(values, self.groups, seed=self.seed, resamples=self.resamples)

    def _paired(self, kind: str, reference: str) -> list[dict[str, Any]]:
        values = self.dice[kind]
        if reference not in values:
            return []
        return paired_rows(
            values, self.groups, reference=reference, seed=self.seed, resamples=self.resamples
        )


def commits_of(runs: Sequence[Records]) -> list[str]:
    """Return the commits of the code that made the runs, where it was a checkout."""
    known = {records.environment.get("commit") for records in runs}
    return sorted(str(commit)[:10] for commit in known if commit)


def by_seed(runs: Sequence[Records]) -> dict[int, list[Records]]:
    """Return a strategy's runs by seed: one, or one a fold."""
    found: dict[int, list[Records]] = {}
    for records in runs:
        found.setdefault(int(records.summary["seed"]), []).append(records)
    return found


def load_comparison(
    runs: Sequence[RunFolder], *, reference: str, prior: Sequence[dict[str, str]] = ()
) -> Comparison:
    """Return the comparison of finished runs, beside the sites' priors where they were scored.

    Raises:
        FlamesError: A run is not finished or one of its files is damaged, the runs were not made
            from the same stores and splits or not scored on the same cases, no seed has all of its
            folds, or the reference is none of their strategies.
    """
    found: dict[str, list[Records]] = {}
    if not runs:
        raise FlamesError("no run is finished", "leave out --report-only, which starts nothing")
    for run in runs:
        if not run.summary.exists():
            run.load_summary()  # says what to do
        records = load_records(run)
        strategy = records.summary.get("strategy")
        lost = "no cases.csv" if not records.cases else "nothing of a run in summary.json"
        if strategy is None or not records.cases:
            raise FlamesError(
                f"{run.path} is finished, but has {lost}",
                made_again(run),
            )
        check_whole(records)
        found.setdefault(str(strategy), []).append(records)
    if len({folds_of(records) for every in found.values() for records in every}) > 1:
        raise FlamesError("the runs have different folds", "compare runs of one --folds only")
    found = {name: whole for name, every in found.items() if (whole := _whole(every))}
    if not found:
        raise FlamesError(
            "no seed has all of its folds finished", "leave out --report-only, which starts nothing"
        )
    if reference not in found:
        raise FlamesError(f"no run of the reference {reference!r}", nearest(reference, found))
    comparison = Comparison(found, reference, next(iter(found.values()))[0].resamples, prior)
    _check_same_cases([records for every in found.values() for records in every])
    for name, every in found.items():
        for table, of_seed in zip(comparison.tables[name], by_seed(every).values(), strict=True):
            if groups_by_site(table) != comparison.groups:
                raise FlamesError(
                    f"{of_seed[0].run.path} and {comparison.first.run.path} were scored on other "
                    "cases",
                    "compare runs of one federation only",
                )
    if prior and groups_by_site(prior) != comparison.groups:
        raise FlamesError(
            "the scores without images are of other cases than the runs'",
            "delete the folder prior beside the runs, and give the command again",
        )
    return comparison


def _check_same_cases(runs: Sequence[Records]) -> None:
    """Refuse runs that were not made from the same stores, or not with the same split of a fold."""
    said = "compare runs on the same images: start anew with a new --out"
    digests, prepared = runs[0].run.store_digests(), runs[0].run.prepared_digests()
    firsts: dict[int, tuple[Records, dict[str, dict[str, set[str]]]]] = {}
    for records in runs:
        if not records.run.environment.exists():
            raise FlamesError(
                f"{records.run.environment} is missing, which says what the run was made from",
                "restore the file, or make the run anew with a new --out",
            )
        if records.run.store_digests() != digests:
            raise FlamesError(
                f"a store changed between {runs[0].run.path} and {records.run.path}", said
            )
        splits = records.run.load_splits()
        first, known = firsts.setdefault(_fold(records), (records, splits))
        for what, one, before, now in (
            ("prepared otherwise", runs[0], prepared, records.run.prepared_digests()),
            ("split anew", first, known, splits),
        ):
            for site in sorted(before.keys() & now.keys()):
                if before[site] != now[site]:
                    raise FlamesError(
                        f"the store of {site} was {what} between {one.run.path} and "
                        f"{records.run.path}",
                        said,
                    )


def _whole(runs: list[Records]) -> list[Records]:
    """Return the runs of the seeds of which every fold is finished."""
    return [
        records
        for folds in by_seed(runs).values()
        if len(folds) == max(1, folds_of(folds[0]))
        for records in folds
    ]


def folds_of(records: Records) -> int:
    """Return how many folds a run is one of; 0 without cross-validation."""
    return int((records.config.get("data") or {}).get("folds", 0))


def _fold(records: Records) -> int:
    return int((records.config.get("data") or {}).get("fold", 0))
