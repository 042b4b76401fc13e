"""What is shown of runs that other processes do."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from flames.cli import progress
from flames.config import RunConfig, SiteConfig
from flames.federation.batch import Job
from flames.runs import RunFolder


@pytest.fixture
def jobs(tmp_path):
    config = RunConfig(sites=(SiteConfig(name="a", store=tmp_path),), rounds=4)
    found = [Job(config, tmp_path / f"local-{seed}") for seed in (0, 1)]
    for job in found:
        job.folder.mkdir()
    return found


def record(job, *rounds):
    lines = [json.dumps({"kind": "site", "site": "a", "round": n}) + "\n" for n in rounds]
    RunFolder(job.folder).rounds.write_text("".join(lines), encoding="utf-8")


def test_rounds_are_counted_by_what_is_recorded(jobs):
    job, _ = jobs
    assert progress.rounds_done(job) == 0
    record(job, 1, 2, 3)
    assert progress.rounds_done(job) == 3
    record(job, 1, 2, 3, 4, 5)  # the closing pass is no round
    assert progress.rounds_done(job) == 4
    record(job, 1)
    RunFolder(job.folder).summary.write_text("{}", encoding="utf-8")
    assert progress.rounds_done(job) == 4


def test_a_terminal_shows_the_rounds_of_all_runs_as_they_are_done(jobs, monkeypatch):
    monkeypatch.setattr(progress, "LOOK_EVERY", 0.01)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    record(jobs[0], 1)
    with progress.rounds_bar(jobs, console, quiet=False):
        record(jobs[1], 1, 2)
        until = time.monotonic() + 20
        while "3/8" not in shown.getvalue() and time.monotonic() < until:
            time.sleep(0.02)
    assert "3/8" in shown.getvalue()


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_no_bar_without_a_terminal_or_when_quiet(jobs, terminal, quiet):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=120)
    with progress.rounds_bar(jobs, console, quiet=quiet):
        pass
    assert shown.getvalue() == ""
