from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from flames.config import dump_config, load_config
from flames.errors import FlamesError
from flames.federation import batch, simulation
from flames.federation.batch import Job, run_missing
from flames.federation.comparison import comparison_jobs
from flames.files import save_json, save_text
from flames.reports.html import write_report


@pytest.fixture
def jobs(make_config, tmp_path):
    config = make_config("us-a", "us-b", rounds=1)
    return comparison_jobs(config, ["local", "modality"], seeds=2, out=tmp_path / "table")


def test_every_strategy_gets_every_seed_and_all_else_alike(jobs):
    assert [job.folder.name for job in jobs] == [
        "local-5", "modality-5", "local-6", "modality-6",
    ]  # fmt: skip
    for job in jobs:
        plain = job.config.model_copy(update={"seed": 0})
        plain = plain.model_copy(
            update={"strategy": plain.strategy.model_copy(update={"name": "flames"})}
        )
        first = jobs[0].config.model_copy(update={"seed": 0})
        first = first.model_copy(
            update={"strategy": first.strategy.model_copy(update={"name": "flames"})}
        )
        assert plain == first


def test_a_finished_run_is_never_repeated_and_a_stopped_one_continues(jobs, monkeypatch, outcome):
    told = []

    class Stop(Exception):
        pass

    def stop(event):
        if event.stage == "round":
            raise Stop

    with pytest.raises(Stop):
        run_missing(jobs[:2], on_event=stop)
    assert (jobs[0].folder / "rounds.jsonl").exists()
    assert not jobs[0].finished
    assert (jobs[0].folder / "state").exists()
    runs = run_missing(jobs[:2], on_done=told.append)
    assert [(d.number, d.total, d.failed) for d in told] == [(1, 2, ""), (2, 2, "")]
    known = outcome(runs[0])

    started = []
    real = batch.simulate
    monkeypatch.setattr(batch, "simulate", lambda *a, **k: started.append(a) or real(*a, **k))
    again = run_missing(jobs[:2])
    assert not started
    assert outcome(again[0]) == known
    run_missing(jobs[:3])
    assert [args[1].name for args in started] == ["local-6"]


def test_what_a_run_continues_from_goes_when_it_is_finished_unless_kept(jobs, outcome):
    kept, bare = run_missing(jobs[:1], keep_state=True)[0], run_missing(jobs[1:2])[0]
    assert kept.state.exists()
    assert not bare.state.exists()
    before = outcome(bare)
    write_report(bare)
    assert outcome(run_missing(jobs[1:2])[0]) == before  # still finished


def test_a_table_of_another_configuration_is_refused_before_anything_runs(jobs):
    run_missing(jobs[:1])
    other = jobs[0].config.model_copy(update={"rounds": 2})
    with pytest.raises(FlamesError, match="another rounds"):
        run_missing([jobs[1], Job(other, jobs[0].folder)])
    assert not jobs[1].folder.exists()


def test_one_run_that_fails_does_not_stop_the_others(jobs, monkeypatch):
    real = simulation.simulate

    def fail(config, out, **given):
        if config.strategy.name == "local":
            raise FlamesError("the disk is full", "free some")
        return real(config, out, **given)

    monkeypatch.setattr(batch, "simulate", fail)
    with pytest.raises(FlamesError, match="1 of 2 runs failed, first local-5: the disk is full"):
        run_missing(jobs[:2])
    assert jobs[1].finished


@pytest.mark.parametrize("names", [["flames", "fedagv"], ["flames", "flames"], []])
def test_strategies_that_cannot_be_compared_are_refused(make_config, tmp_path, names):
    with pytest.raises(FlamesError):
        comparison_jobs(make_config(), names, seeds=1, out=tmp_path)


def test_a_table_is_not_made_in_the_folder_of_a_run_or_another_study(make_config, tmp_path):
    save_json(tmp_path / "plan.json", {})
    with pytest.raises(FlamesError, match="holds a study of unseen organs"):
        comparison_jobs(make_config(), ["flames"], seeds=1, out=tmp_path)


def test_a_table_is_not_made_over_that_of_another_configuration(make_config, tmp_path):
    before = make_config("us-a", rounds=3)
    save_text(tmp_path / "local-0" / "config.toml", dump_config(before))
    other = make_config("us-a", rounds=4)
    with pytest.raises(FlamesError, match=r"local-0 was made with another rounds, so .* holds"):
        comparison_jobs(other, ["flames"], seeds=1, out=tmp_path)
    more = before.model_copy(update={"seed": 5})
    assert len(comparison_jobs(more, ["flames"], seeds=1, out=tmp_path)) == 1


def test_a_run_that_somebody_works_on_is_left_alone(jobs):
    refused = []

    def again(event):
        if event.stage == "round" and not refused:
            with pytest.raises(FlamesError, match=f"in use by process {os.getpid()}") as error:
                run_missing(jobs[:1])
            refused.append(error)

    run_missing(jobs[:1], on_event=again)
    assert refused
    assert jobs[0].finished


def test_a_process_that_ended_is_a_failed_run(jobs, monkeypatch):
    class Broken(ThreadPoolExecutor):
        def submit(self, *_):
            def end():
                raise BrokenProcessPool

            return super().submit(end)

    monkeypatch.setattr(batch, "Workers", Broken)
    told = []
    with pytest.raises(FlamesError, match=r"2 of 2 runs failed, first .*: its process ended"):
        run_missing(jobs[:2], at_a_time=2, on_done=told.append)
    assert [done.number for done in told] == [0, 0]


@pytest.mark.slow
def test_two_at_a_time_give_the_bits_of_one(make_config, tmp_path, outcome, monkeypatch):
    monkeypatch.undo()
    config = make_config("us-a", "us-b", rounds=1)
    apart = comparison_jobs(config, ["local", "modality"], seeds=1, out=tmp_path / "apart")
    alone = comparison_jobs(config, ["local", "modality"], seeds=1, out=tmp_path / "alone")
    import sys

    monkeypatch.setattr(sys.modules["flames.models.unet"], "FILTERS", (16, 32, 64, 128, 256))
    for one, other in zip(run_missing(apart, at_a_time=2), run_missing(alone), strict=True):
        assert outcome(one) == outcome(other)


def test_a_table_is_not_added_to_with_other_images(jobs):
    run = run_missing(jobs[:1])[0]
    known = json.loads(run.environment.read_text(encoding="utf-8"))
    save_json(run.environment, known | {"stores": known["stores"] | {"us-b": "0" * 64}})
    for wanted in (jobs[:2], jobs[:1]):
        with pytest.raises(FlamesError, match=r"us-b changed since .*local-5 was made"):
            run_missing(wanted)
    assert not jobs[1].folder.exists()
    reported = run_missing(jobs[:2], report_only=True)
    assert [r.path for r in reported] == [run.path], "what is finished can still be reported"


def test_a_table_is_reported_where_its_stores_are_not(jobs):
    """As where runs were copied to another machine, to write about them."""
    run = run_missing(jobs[:1])[0]
    config = jobs[0].config
    sites = tuple(site.model_copy(update={"store": Path("/away")}) for site in config.sites)
    moved = [Job(config.model_copy(update={"sites": sites}), run.path)]
    assert [r.path for r in run_missing(moved, report_only=True)] == [run.path]
    assert [r.path for r in run_missing(moved)] == [run.path], "it is finished, and needs none"
    fewer = [Job(config.model_copy(update={"sites": sites[:1]}), run.path)]
    with pytest.raises(FlamesError, match="was made with another sites"):
        run_missing(fewer, report_only=True)
    none = tuple(site.model_copy(update={"store": None}) for site in config.sites)
    apart = [Job(config.model_copy(update={"sites": none}), run.path)]
    with pytest.raises(FlamesError, match="was made with another sites"):
        run_missing(apart)


def test_a_table_grows_where_its_stores_moved(make_config, write_store, tmp_path):
    """As where the folder of a study was moved to a machine with a GPU."""
    store = write_store(tmp_path / "here", site="us-b")
    config = make_config("us-a", "us-b", stores={"us-b": store}, rounds=1)
    run_missing(comparison_jobs(config, ["local"], seeds=1, out=tmp_path / "table"))
    there = (tmp_path / "here").rename(tmp_path / "there")
    sites = (config.sites[0], config.sites[1].model_copy(update={"store": there}))
    moved = config.model_copy(update={"sites": sites})
    runs = run_missing(
        comparison_jobs(moved, ["local", "modality"], seeds=1, out=tmp_path / "table")
    )
    assert [run.summary.exists() for run in runs] == [True, True]
    kept = load_config(runs[0].config)
    assert kept.sites[1].store == config.sites[1].store, "what was finished is left as it was"
    another = write_store(tmp_path / "here", site="us-b", seed=9)
    other = config.model_copy(
        update={"sites": (sites[0], sites[1].model_copy(update={"store": another.path}))}
    )
    with pytest.raises(FlamesError, match="changed since"):
        run_missing(comparison_jobs(other, ["local"], seeds=1, out=tmp_path / "table"))


@pytest.mark.parametrize("change", [{"intensity": [0.0, 90.0]}, {"spacing": [1.0, 1.0]}])
def test_a_table_is_not_added_to_with_images_prepared_otherwise(
    make_config, write_store, tmp_path, change
):
    """Another CT window or spacing leaves pixels and split, and so their digests, as they are."""
    store = write_store(tmp_path / "store", site="us-b")
    config = make_config("us-a", "us-b", stores={"us-b": store}, rounds=1)
    jobs = comparison_jobs(config, ["local", "modality"], seeds=1, out=tmp_path / "table")
    run = run_missing(jobs[:1])[0]
    info = json.loads((store.path / "store.json").read_text(encoding="utf-8"))
    info["cases"] = [case | change for case in info["cases"]]
    save_json(store.path / "store.json", info)
    with pytest.raises(FlamesError, match=r"store was prepared otherwise since .*local-5 was"):
        run_missing(jobs)
    assert not jobs[1].folder.exists()
    known = json.loads(run.environment.read_text(encoding="utf-8"))
    del known["prepared"]
    save_json(run.environment, known)
    assert run_missing(jobs[:1]), "a run that did not record it is taken as it is"


def test_a_finished_table_is_not_taken_for_one_of_another_split(jobs):
    run = run_missing(jobs[:1])[0]
    known = json.loads(run.splits.read_text(encoding="utf-8"))
    sides = known["us-b"]
    sides["train"], sides["test"] = sides["test"], sides["train"]
    save_json(run.splits, known)
    with pytest.raises(FlamesError, match=r"us-b was split anew since .*local-5 was made: 5 of"):
        run_missing(jobs[:1])
    assert run_missing(jobs[:1], report_only=True)
    run.splits.unlink()
    assert run_missing(jobs[:1]), "a run that did not record its split is taken as it is"
