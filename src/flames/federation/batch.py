"""Many runs from one table: finished ones are left, stopped ones continued, several at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from flames.config import RunConfig, differing_keys, load_config
from flames.data.folds import in_fold
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.federation.environment import check_unchanged
from flames.federation.simulation import OnEvent, simulate
from flames.processes import ENDED, Failure, Workers
from flames.runs import RunFolder


@dataclass(frozen=True)
class Job:
    """One run that a table needs."""

    config: RunConfig
    folder: Path

    @property
    def finished(self) -> bool:
        """Return whether the run has its scores."""
        return RunFolder(self.folder).summary.exists()


@dataclass(frozen=True)
class Done:
    """Progress of a table: one more run has ended."""

    job: Job
    number: int
    total: int
    failed: str = ""


def run_missing(
    jobs: Sequence[Job],
    *,
    at_a_time: int = 1,
    keep_state: bool = False,
    report_only: bool = False,
    on_event: OnEvent = lambda _: None,
    on_done: Callable[[Done], None] = lambda _: None,
) -> list[RunFolder]:
    """Run what is not finished, and return the run folders in the order of ``jobs``.

    Args:
        jobs: The table; a folder that a killed run left is continued.
        at_a_time: Processes; each gets its share of the processor where ``threads`` is 0.
        keep_state: Keep what a stopped run would continue from, most of a folder, when a run is
            finished.
        report_only: Run nothing, return what is finished, and look at no store: a report needs
            none.
        on_event: Events of the run, where one runs at a time.
        on_done: Called after each run.

    Raises:
        FlamesError: A folder belongs to a run with another configuration, or with other images or
            another split (before anything is started), or a run failed (after the others have
            ended).
    """
    if report_only:
        jobs = [job for job in jobs if job.finished]
    for job in jobs:
        _check(job)
    if not report_only:
        _check_stores(jobs)
    waiting = [job for job in jobs if not job.finished]
    failures: list[tuple[Job, Failure]] = []

    def tell(job: Job, failure: Failure | None) -> None:
        if failure:
            failures.append((job, failure))
        done = sum(other.finished for other in jobs)
        on_done(Done(job, done, len(jobs), failure[0] if failure else ""))

    if at_a_time == 1:
        for job in waiting:
            tell(job, _run(job, on_event, keep_state))
    elif waiting:
        threads = max(1, (os.cpu_count() or 1) // at_a_time)
        with Workers(at_a_time) as pool:
            asked = {pool.submit(_run_apart, job, threads, keep_state): job for job in waiting}
            for future in as_completed(asked):
                try:
                    failure = future.result()
                except BrokenProcessPool:
                    failure = ENDED
                tell(asked[future], failure)
    if failures:
        job, (found, remedy) = failures[0]
        raise FlamesError(
            f"{len(failures)} of {len(jobs)} runs failed, first {job.folder.name}: {found}", remedy
        )
    return [RunFolder(job.folder) for job in jobs]


def _check(job: Job) -> None:
    """Refuse a folder of another run."""
    run = RunFolder(job.folder)
    if not run.config.exists():
        return
    known = load_config(run.config)
    # The run made the plans that its job left out, and does so again when it goes on.
    wanted = job.config.model_copy(update={"plans": {**known.plans, **job.config.plans}})
    if different := differing_keys(known, wanted):
        raise FlamesError(
            f"{run.path} was made with another {', '.join(different)}",
            f"give the options that {run.config} says, or name a new --out",
        )


def _check_stores(jobs: Sequence[Job]) -> None:
    """Refuse runs that were made from other images than the stores hold now, or split otherwise.

    A store that is not there has not changed: a run that needs it says so itself.
    """
    opened: dict[Path, SiteStore] = {}
    seen: dict[tuple[Path, int, int], SiteStore] = {}
    for job in jobs:
        run, data = RunFolder(job.folder), job.config.data
        if not run.environment.exists():
            continue
        stores: dict[str, SiteStore] = {}
        for site in job.config.sites:
            if site.store is None or not site.store.exists():
                continue
            if site.store not in opened:
                opened[site.store] = SiteStore.open(site.store)
            key = (site.store, data.folds, data.fold)
            if key not in seen:
                seen[key] = in_fold(opened[site.store], data.folds, data.fold)
            stores[site.name] = seen[key]
        check_unchanged(run, stores)


def _run(job: Job, on_event: OnEvent, keep_state: bool) -> Failure | None:
    try:
        run = simulate(job.config, job.folder, resume=job.folder.exists(), on_event=on_event)
    except FlamesError as error:
        return error.found, error.remedy
    if not keep_state:
        shutil.rmtree(run.state, ignore_errors=True)
    return None


def _run_apart(job: Job, threads: int, keep_state: bool) -> Failure | None:
    if not job.config.threads:
        torch.set_num_threads(threads)
    return _run(job, lambda _: None, keep_state)
