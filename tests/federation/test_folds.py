"""Runs of a cross-validation: each sees its own fold, and a report puts them together."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from flames.data.folds import in_fold
from flames.data.prior import spatial_prior
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError
from flames.federation.batch import run_missing
from flames.federation.comparison import comparison_jobs, kept_priors, score_priors
from flames.federation.evaluation import evaluate_run
from flames.inference.prior import score_prior
from flames.inference.score import ScoreOptions
from flames.models.precision import choose_precision
from flames.reports.compare import write_comparison
from flames.runs import RunFolder, load_csv

FLOAT32 = choose_precision("float32")


@pytest.fixture(scope="module")
def jobs(make_config, tmp_path_factory):
    """Return the finished runs of two strategies in three folds."""
    config = make_config("us-a", "us-b", rounds=1, data={"folds": 3})
    out = tmp_path_factory.mktemp("table")
    jobs = comparison_jobs(config, ["flames", "local"], seeds=1, out=out)
    run_missing(jobs)
    return jobs


def test_there_is_a_run_for_every_fold(jobs):
    assert [job.folder.name for job in jobs] == [
        f"{name}-5-fold-{fold}" for fold in range(3) for name in ("flames", "local")
    ]
    assert [job.config.data.fold for job in jobs] == [0, 0, 1, 1, 2, 2]


def test_each_run_is_of_its_fold(jobs, site_stores):
    for job in jobs:
        known = json.loads((job.folder / "splits.json").read_text())
        fold = in_fold(site_stores["us-b"], 3, job.config.data.fold)
        assert known["us-b"] == {side: [c.case_id for c in fold.split(side)] for side in SPLITS}
        tested = {r["case_id"] for r in load_csv(job.folder / "cases.csv") if r["site"] == "us-b"}
        assert tested == {case.case_id for case in fold.split("test")}


def test_a_report_has_every_case_once(jobs, site_stores, tmp_path):
    runs = [RunFolder(job.folder) for job in jobs]
    page = write_comparison(tmp_path, runs, reference="flames").read_text(encoding="utf-8")
    assert "With 3 folds every case is a test case once" in page
    assert "nor its patient, where patients are recorded, else no near-duplicate of it" in page
    assert "the mean over sites is then less sure than it looks" in page
    scores = load_csv(tmp_path / "tables" / "scores.csv")
    with (tmp_path / "tables" / "cases.csv").open(encoding="utf-8") as file:
        cases = list(csv.DictReader(file))
    for site in ("us-a", "us-b"):
        assert sorted(r["case_id"] for r in cases if r["site"] == site) == sorted(
            site_stores[site].cases
        )
    assert {row["seeds"] for row in scores} == {"1"}
    # All tumours have a Dice; the one case without tumour may have none.
    tumours = sum(case.has_tumour for case in site_stores["us-a"].cases.values())
    mine = [
        r for r in scores if (r["site"], r["measure"], r["model"]) == ("us-a", "dice", "personal")
    ]
    assert {tumours, tumours + 1} >= {int(r["n"]) for r in mine}


def test_a_site_without_its_images_is_scored_in_every_fold(
    make_config, site_stores, jobs, tmp_path
):
    config = make_config("us-a", "us-b", data={"folds": 3})
    runs = [RunFolder(job.folder) for job in jobs]
    assert kept_priors(config, out=tmp_path, runs=runs) == []
    told = []
    rows = score_priors(config, out=tmp_path, on_progress=lambda *said: told.append(said))
    assert [done for _, done, total in told if total == 6] == list(range(6))
    for site in ("us-a", "us-b"):
        assert sorted(r["case_id"] for r in rows if r["site"] == site) == sorted(
            site_stores[site].cases
        )
    # A fold's mask comes from the fold's training cases, and its scores are of its test cases.
    fold = in_fold(site_stores["us-a"], 3, 1)
    mask = spatial_prior([fold], config.data.image_size)
    options = ScoreOptions(batch_size=8, flip=False, nsd_tolerance=2.0)
    scored = score_prior(mask, fold, site="us-a", precision=FLOAT32, options=options)
    kept = {r["case_id"]: r["dice"] for r in load_csv(tmp_path / "prior" / "us-a-fold-1.csv")}
    assert kept == {
        case.row["case_id"]: "" if case.row["dice"] is None else str(case.row["dice"])
        for case in scored
    }
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "prior").iterdir()}
    assert score_priors(config, out=tmp_path) == rows
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert kept_priors(config, out=tmp_path, runs=runs) == rows
    size = config.model_copy(update={"data": config.data.model_copy(update={"image_size": 64})})
    assert kept_priors(size, out=tmp_path, runs=runs) == []
    other = [RunFolder(tmp_path / "other" / run.path.name) for run in runs]
    shutil.copytree(runs[0].path.parent, tmp_path / "other")
    known = other[1].load_splits()["us-a"]
    known["train"], known["val"] = sorted(known["val"]), sorted(known["train"])
    splits = json.loads(other[1].splits.read_text(encoding="utf-8"))
    other[1].splits.write_text(
        json.dumps(splits | {"us-a": known | {"test": sorted(known["test"])}})
    )
    assert kept_priors(config, out=tmp_path, runs=other) == [], "the runs have another split"
    page = write_comparison(tmp_path, runs, reference="flames", prior=rows)
    assert "no image" in page.read_text(encoding="utf-8")
    one = tmp_path / "prior" / "us-b-fold-2.csv"
    for cut in (one.read_text()[:-120], "", one.read_text().replace("case_id", "case")):
        one.write_text(cut, encoding="utf-8")
        assert kept_priors(config, out=tmp_path, runs=runs) == []
    one.unlink()
    assert kept_priors(config, out=tmp_path, runs=runs) == []
    assert score_priors(config, out=tmp_path) == rows


def test_the_files_of_a_store_are_read_over_once_for_all_folds(make_config, tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(SiteStore, "verify", lambda store: read.append(store.site))
    score_priors(make_config("us-a", "us-b", data={"folds": 3}), out=tmp_path)
    assert sorted(read) == ["us-a", "us-b"]


def test_a_site_without_its_images_is_scored_anew_where_masks_or_size_are_others(
    make_config, write_store, tmp_path
):
    def scored(number, size):
        def move(image, label):
            image[:], label[:] = np.roll(image, 8 * number, 1), np.roll(label, 8 * number, 1)

        store = write_store(tmp_path / f"store-{number}", site="us-a", change=move)
        config = make_config("us-a", stores={"us-a": store}, data={"image-size": size})
        kept = score_priors(config, out=tmp_path / "out")
        assert kept == score_priors(config, out=tmp_path / "out")
        alone = score_priors(config, out=tmp_path / f"alone-{number}-{size}")
        assert [row["dice"] for row in kept] == [row["dice"] for row in alone]
        return {row["made_of"] for row in kept}

    assert len(scored(0, 32) | scored(1, 32) | scored(2, 64)) == 3


def test_a_seed_without_all_of_its_folds_does_not_count(jobs, tmp_path):
    runs = [RunFolder(job.folder) for job in jobs]
    partly = [run for run in runs if run.path.name != "local-5-fold-1"]
    write_comparison(tmp_path / "one", partly, reference="flames")
    overview = load_csv(tmp_path / "one" / "tables" / "overview.csv")
    assert [row["strategy"] for row in overview] == ["flames"]
    with pytest.raises(FlamesError, match="no seed has all of its folds"):
        write_comparison(tmp_path / "two", runs[:2], reference="flames")


def test_runs_of_other_folds_are_not_put_together(jobs, finished, tmp_path):
    with pytest.raises(FlamesError, match="different folds"):
        write_comparison(tmp_path, [RunFolder(jobs[0].folder), finished], reference="flames")


def test_a_site_is_scored_on_what_its_fold_did_not_train_on(
    jobs, site_stores, third_store, tmp_path
):
    run, fold = jobs[4].folder, in_fold(site_stores["us-a"], 3, 2)
    stores = [site_stores["us-a"].path, third_store["us-c"].path]
    evaluate_run(run, stores, tmp_path / "out", model=None, split="test")
    rows = load_csv(tmp_path / "out" / "cases.csv")
    tested = {s: {r["case_id"] for r in rows if r["site"] == s} for s in ("us-a", "us-c")}
    assert tested["us-a"] == {case.case_id for case in fold.split("test")}
    assert tested["us-c"] == {case.case_id for case in third_store["us-c"].split("test")}


def test_a_site_that_was_split_anew_is_not_scored(jobs, site_stores, third_store, tmp_path):
    run, path = jobs[4].folder, tmp_path / "us-a"
    shutil.copytree(site_stores["us-a"].path, path)
    evaluate_run(run, [path], tmp_path / "before", model=None, split="test")
    splits = json.loads((path / "splits.json").read_text(encoding="utf-8"))
    (path / "splits.json").write_text(json.dumps(splits | {"seed": 77}), encoding="utf-8")
    with pytest.raises(FlamesError, match="us-a was split anew since"):
        evaluate_run(run, [path], tmp_path / "out", model=None, split="test")
    assert not (tmp_path / "out").exists()


def test_a_site_that_was_prepared_again_is_not_scored_as_a_stranger(
    jobs, site_stores, write_store, tmp_path
):
    run = jobs[4].folder
    grown = write_store(tmp_path / "grown", site="us-a", counts=(4, 2, 4), seed=1)
    with pytest.raises(FlamesError, match="not the store of site 'us-a'") as error:
        evaluate_run(run, [grown.path], tmp_path / "out", model=None, split="test")
    assert "under a name of its own" in error.value.remedy


def test_too_many_folds_are_refused_before_anything_runs(make_config, tmp_path):
    config = make_config("us-a", "us-b", data={"folds": 8})
    with pytest.raises(FlamesError, match="us-b has 7 patients"):
        comparison_jobs(config, ["local"], seeds=1, out=tmp_path)


def test_a_report_of_folds_looks_at_no_store(make_config, jobs):
    config = make_config("us-a", "us-b", rounds=1, data={"folds": 3})
    gone = tuple(
        site.model_copy(update={"store": site.store.with_name("gone")}) for site in config.sites
    )
    config = config.model_copy(update={"sites": gone})
    out = jobs[0].folder.parent
    found = comparison_jobs(config, ["flames", "local"], seeds=1, out=out, report_only=True)
    assert [job.folder for job in found] == [job.folder for job in jobs]
    with pytest.raises(FlamesError, match="no site store at"):
        comparison_jobs(config, ["flames", "local"], seeds=1, out=out)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"folds": 2}, "3 folds or more"),
        ({"folds": 4, "fold": 4}, "fold 4 of 4"),
        ({"fold": 1}, "fold 1 of 0"),
    ],
)
def test_folds_that_cannot_be_are_refused(make_config, data, words):
    with pytest.raises(FlamesError, match=words):
        make_config("us-a", data=data)
