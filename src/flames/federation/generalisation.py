"""Organs and hospitals that nobody trained on: which runs that takes, and their scores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flames.config import RunConfig
from flames.data.prior import spatial_prior
from flames.data.store import SPLITS, SiteStore, Split
from flames.errors import FlamesError, nearest
from flames.federation.batch import Job
from flames.federation.simulation import make_strategy
from flames.federation.study import MADE_OF, UNSEEN, digest_of, load_scores, refuse_others
from flames.files import save_json
from flames.inference.corners import CORNER_SHARE
from flames.inference.prior import score_prior
from flames.inference.score import ScoreOptions, load_model, score_store
from flames.models.precision import choose_precision
from flames.processes import ENDED, Failure, Workers
from flames.runs import RunFolder, load_csv, save_csv

SERVER, OWN, POOLED, PRIOR = "server", "own", "pooled", "prior"
EVERYTHING, ALIKE = "everything", "alike"
CLAIMS = (SERVER, OWN, POOLED, EVERYTHING, ALIKE)
"""The modality's server model, and its references: trained on the site alone, on the pooled cases
of the modality's other sites, and by all other sites of all modalities together, weighted by cases
or each site alike. The prior is no model: it is where tumours lie at all other sites, whatever the
image shows."""
NEW_TO_SITE = (SERVER, POOLED, EVERYTHING, ALIKE, PRIOR)
"""What never saw the site that it is scored on."""
WHOLE, OFF_CENTRE = "whole", "off-centre"
"""How images are seen: as they are, or in four crops from their corners, see `predict_corners`."""


@dataclass(frozen=True)
class LeftOut:
    """Sites that a training leaves out, and those of their modality that it uses."""

    name: str
    kinds: tuple[str, ...]
    """``organ``, ``hospital`` or both: an organ that one hospital holds is both."""
    modality: str
    sites: tuple[str, ...]
    rest: tuple[str, ...]


def plan(stores: Mapping[str, SiteStore]) -> tuple[list[LeftOut], list[str]]:
    """Return what to leave out in turn, and sentences on what cannot be.

    Raises:
        FlamesError: Nothing can be left out: no modality has two sites.
    """
    found: dict[tuple[str, ...], LeftOut] = {}
    notes = []
    for modality in sorted({store.modality for store in stores.values()}):
        mine = sorted(name for name, store in stores.items() if store.modality == modality)
        spelled: dict[str, str] = {}
        for name in mine:
            spelled.setdefault(_plain(stores[name].organ), stores[name].organ)
        organs = sorted(spelled.values())
        if len(mine) == 1:
            notes.append(f"{modality} has one site, {mine[0]}: nothing is left to train on")
            continue
        if len(organs) == 1:
            notes.append(f"{modality} has one organ, {organs[0]}: no organ can be left out")
        groups: list[tuple[str, str, tuple[str, ...]]] = [
            ("hospital", name, (name,)) for name in mine
        ]
        groups += [
            ("organ", organ, tuple(n for n in mine if _plain(stores[n].organ) == _plain(organ)))
            for organ in organs
        ]
        for kind, word, sites in groups:
            rest = tuple(name for name in mine if name not in sites)
            if rest:
                known = found.get(sites)
                kinds = (*known.kinds, kind) if known else (kind,)
                name = known.name if known else f"{modality}-{word}"
                if not known and any(part.name == name for part in found.values()):
                    name = f"{modality}-{kind}-{word}"  # an organ named like another's site
                found[sites] = LeftOut(name, kinds, modality, sites, rest)
    if not found:
        raise FlamesError(
            "no site can be left out: every modality has one site",
            "add sites, two or more of one modality",
        )
    return list(found.values()), notes


def _plain(organ: str) -> str:
    """Return an organ's name as it is compared: each hospital spelled it for itself."""
    return " ".join(organ.casefold().split())


def check_apart(stores: Mapping[str, SiteStore]) -> None:
    """Refuse sites that share an image: leaving one of them out does not leave the image out.

    Test cases of both may be the same, since nobody trains on them.

    Raises:
        FlamesError: A case of one site is a training or validation case of another.
    """
    known: dict[str, tuple[str, str, bool]] = {}
    for name, store in stores.items():
        for side in SPLITS:
            for case in store.split(side):
                mine = (name, case.case_id, side == "test")
                other = known.setdefault(case.arrays_sha256, mine)
                if other[0] != name and not (other[2] and mine[2]):
                    raise FlamesError(
                        f"case {case.case_id!r} of {name} is case {other[1]!r} of {other[0]}, so a "
                        "model would be scored on images that it was trained on",
                        "leave one of the two stores out",
                    )


def parts_named(parts: Sequence[LeftOut], names: Sequence[str]) -> list[LeftOut]:
    """Return the parts of these names, all where there is no name.

    An organ is ``MODALITY-ORGAN``, or ``MODALITY-organ-ORGAN`` where a site has that name; a
    hospital, and an organ that one hospital holds, ``MODALITY-SITE``.

    Raises:
        FlamesError: There is no such part.
    """
    known = {part.name: part for part in parts}
    for name in names:
        if name not in known:
            raise FlamesError(
                f"nothing that can be left out is named {name!r}", nearest(name, known)
            )
    return [part for part in parts if not names or part.name in names]


def generalisation_jobs(
    config: RunConfig, parts: Sequence[LeftOut], *, seeds: int, out: Path
) -> list[Job]:
    """Return every run that the study needs, ``out/runs/WHAT-SEED``.

    Raises:
        FlamesError: The strategy leaves the server no model of a modality, the runs would begin
            with an earlier one, or ``out`` holds a run or another study.
    """
    strategy = make_strategy(config)
    if any(strategy.group_of(part.modality) != part.modality for part in parts):
        raise FlamesError(
            f"strategy {config.strategy.name!r} leaves the server no model of a modality",
            "name one that does, such as --strategy flames or --strategy modality",
        )
    if config.start is not None:
        raise FlamesError(
            f"the models of {config.start} may have been trained on what is left out here",
            "leave out start: every model of this study begins with random weights",
        )
    every = tuple(site.name for site in config.sites)
    jobs = []
    for seed in range(config.seed, config.seed + seeds):
        wanted = [(OWN, "local", every)]
        for part in parts:
            others = tuple(name for name in every if name not in part.sites)
            wanted += [
                (f"{SERVER}-{part.name}", config.strategy.name, part.rest),
                (f"{POOLED}-{part.name}", "central", part.rest),
                (f"{EVERYTHING}-{part.name}", "fedavg", others),
                (f"{ALIKE}-{part.name}", "uniform", others),
            ]
        jobs += [
            Job(_only(config, strategy, sites, seed), _run(out, name, seed).path)
            for name, strategy, sites in wanted
        ]
    refuse_others(out, own=UNSEEN, runs=[job.folder for job in jobs])
    return jobs


@dataclass(frozen=True)
class Asked:
    """One model to be scored at one site."""

    claim: str
    part: LeftOut
    site: str
    seed: int
    model: Path | None
    """None of the prior."""
    kept: Path
    """Where its scores are."""
    others: tuple[str, ...] = ()
    """Sites whose masks the prior is made of."""
    view: str = WHOLE

    @property
    def sides(self) -> tuple[Split, ...]:
        """Return what of the site it is scored on: all that it never saw."""
        return ("test",) if self.claim == OWN or self.site in self.part.rest else SPLITS

    def needed(self, stores: Mapping[str, SiteStore]) -> dict[str, SiteStore]:
        """Return the stores that its scores are made from."""
        return {name: stores[name] for name in (self.site, *self.others)}

    def made_of(self, stores: Mapping[str, SiteStore], config: RunConfig) -> str:
        """Return a digest of what decides its scores; nothing where its model is gone."""
        judged = config.evaluation
        if self.model is None:
            model, how = "", [config.data.image_size, judged.nsd_tolerance]
        elif self.model.exists():
            model = hashlib.sha256(self.model.read_bytes()).hexdigest()
            how = [judged.flip, judged.nsd_tolerance]
        else:
            return ""
        if self.view == OFF_CENTRE:
            how.append(CORNER_SHARE)
        return digest_of(self.needed(stores).values(), model, *how)

    def load(
        self, stores: Mapping[str, SiteStore], config: RunConfig
    ) -> list[dict[str, str]] | None:
        """Return the scores that are there; None where they must be made."""
        return load_scores(
            self.kept,
            stores[self.site],
            splits=self.sides,
            beside=("split",),
            made_of=self.made_of(stores, config),
        )

    def score(self, stores: Mapping[str, SiteStore], config: RunConfig) -> None:
        """Score the model with the stores that it needs, and save what it gives."""
        store = stores[self.site]
        precision = choose_precision(config.training.precision)
        if self.model is None:
            others = [stores[name] for name in self.others]
            score = partial(score_prior, spatial_prior(others, config.data.image_size))
        else:
            score = partial(score_store, load_model(self.model, precision))
        rows = []
        for side in self.sides:
            options = ScoreOptions.of(config.evaluation, side)
            if self.view == OFF_CENTRE:
                options = replace(options, corners=CORNER_SHARE)
            scored = score(store, site=self.site, precision=precision, options=options)
            rows += [{"split": side} | case.row for case in scored]
        said = self.made_of(stores, config)
        save_csv(self.kept, [row | {MADE_OF: said} for row in rows])


def score_generalisation(
    config: RunConfig,
    stores: Mapping[str, SiteStore],
    parts: Sequence[LeftOut],
    *,
    seeds: int,
    out: Path,
    at_a_time: int = 1,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Score every model where it was not trained; return and save the rows, ``out/cases.csv``.

    A model is scored on every case of a site that it was not trained on, and on the test cases of
    one that it was. Its scores on a site are kept in ``out/scores`` and measured again only where
    the file is damaged or the model or a store is another, in ``at_a_time`` processes. Each row has
    a ``claim`` beside the columns of a run's ``cases.csv``, the part that was left out, its kinds,
    the seed, how the images are seen, and the side of the site's split that has the case. Rows of
    ``alone`` are those of one site's model on another site.

    Raises:
        FlamesError: A model or store cannot be read, or the disk is full; what is scored stays.
    """
    asked = _asked(config, stores, parts, seeds=seeds, out=out)
    known = {one: one.load(stores, config) for one in asked}
    missing = [one for one, scores in known.items() if scores is None]
    on_progress("scores", 0, len(missing))
    for done, (one, failure) in enumerate(_scored(missing, stores, config, at_a_time), start=1):
        what = f"{one.claim} of {one.part.name} on {one.site}, {one.view}"
        if failure:
            raise FlamesError(f"{what}: {failure[0]}", failure[1])
        on_progress(what, done, len(missing))
        known[one] = load_csv(one.kept)
    rows: list[dict[str, Any]] = []
    for one, scores in known.items():
        note = {
            "claim": one.claim,
            "left_out": one.part.name,
            "kinds": " ".join(one.part.kinds),
            "trained_on": " ".join(one.part.rest),
            "seed": str(one.seed),
            "view": one.view,
        }
        rows += [
            note | {key: value for key, value in row.items() if key != MADE_OF}
            for row in scores or ()
        ]
    save_csv(out / "cases.csv", rows)
    return rows


def _asked(
    config: RunConfig,
    stores: Mapping[str, SiteStore],
    parts: Sequence[LeftOut],
    *,
    seeds: int,
    out: Path,
) -> list[Asked]:
    """Return every model, site and view, in the order of the rows.

    Images are seen off-centre only by what never saw the site: nothing else is compared there.
    """
    wanted: list[tuple[str, LeftOut, str, int, Path]] = []
    asked = [_prior(part, site, config, stores, out) for part in parts for site in part.sites]
    for seed in range(config.seed, config.seed + seeds):
        alone = _run(out, OWN, seed)
        for part in parts:
            models = {
                SERVER: _run(out, f"{SERVER}-{part.name}", seed).server_model(part.modality),
                POOLED: _run(out, f"{POOLED}-{part.name}", seed).server_model(part.modality),
            }
            models |= {
                claim: _run(out, f"{claim}-{part.name}", seed).server_model("all")
                for claim in (EVERYTHING, ALIKE)
            }
            for site in part.sites:
                paths = models | {OWN: alone.personal_model(site)}
                wanted += [(claim, part, site, seed, paths[claim]) for claim in CLAIMS]
        for one, store in stores.items():
            wanted += [
                ("alone", LeftOut(one, (), store.modality, (site,), (one,)), site, seed,
                 alone.personal_model(one))
                for site, other in stores.items()
                if other.modality == store.modality
            ]  # fmt: skip
    asked += [
        Asked(claim, part, site, seed, path, _kept(out, claim, part, site, seed))
        for claim, part, site, seed, path in wanted
    ]
    return asked + [
        replace(one, view=OFF_CENTRE, kept=one.kept.with_stem(f"{OFF_CENTRE}-{one.kept.stem}"))
        for one in asked
        if one.claim in NEW_TO_SITE
    ]


def _prior(
    part: LeftOut, site: str, config: RunConfig, stores: Mapping[str, SiteStore], out: Path
) -> Asked:
    """Return the prior of all sites that are not left out, which no seed changes."""
    seed = config.seed
    others = tuple(name for name in stores if name not in part.sites)
    return Asked(PRIOR, part, site, seed, None, _kept(out, PRIOR, part, site, seed), others)


def _kept(out: Path, claim: str, part: LeftOut, site: str, seed: int) -> Path:
    return out / "scores" / f"{claim}-{part.name}-{site}-{seed}.csv"


def _run(out: Path, what: str, seed: int) -> RunFolder:
    return RunFolder(out / "runs" / f"{what}-{seed}")


def _scored(
    missing: Sequence[Asked], stores: Mapping[str, SiteStore], config: RunConfig, at_a_time: int
) -> Iterator[tuple[Asked, Failure | None]]:
    """Score one model after another, or several at a time; yield each with what went wrong."""
    if at_a_time == 1:
        if config.threads:
            torch.set_num_threads(config.threads)
        for one in missing:
            yield one, _score(one, one.needed(stores), config)
        return
    threads = config.threads or max(1, (os.cpu_count() or 1) // at_a_time)
    with Workers(at_a_time, torch.set_num_threads, threads) as pool:
        running = {pool.submit(_score, one, one.needed(stores), config): one for one in missing}
        for future in as_completed(running):
            try:
                yield running[future], future.result()
            except BrokenProcessPool:
                yield running[future], ENDED


def _score(one: Asked, stores: Mapping[str, SiteStore], config: RunConfig) -> Failure | None:
    try:
        one.score(stores, config)
    except FlamesError as error:
        return error.found, error.remedy
    return None


def save_plan(path: Path, parts: Sequence[LeftOut], notes: Sequence[str]) -> None:
    """Write what is left out in turn, for a reader of the folder."""
    save_json(
        path,
        {
            "left_out": [
                {"name": p.name, "kinds": p.kinds, "modality": p.modality, "sites": p.sites,
                 "trained_on": p.rest}
                for p in parts
            ],
            "notes": list(notes),
        },
    )  # fmt: skip


def _only(config: RunConfig, strategy: str, sites: Sequence[str], seed: int) -> RunConfig:
    return config.model_copy(
        update={
            "seed": seed,
            "sites": tuple(site for site in config.sites if site.name in sites),
            "strategy": config.strategy.model_copy(update={"name": strategy}),
        }
    )
