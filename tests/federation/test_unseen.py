"""What a run was trained on is not scored as unseen, under whatever name it comes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flames.cli.main import app
from flames.data.store import SPLITS, SiteStore, cases_digest
from flames.errors import FlamesError
from flames.federation.adaptation import AdaptOptions, adapt
from flames.federation.evaluation import evaluate_run, sites_not_compared
from flames.federation.robustness import evaluate_shifts
from flames.runs import RunFolder


def under_other_names(source: SiteStore, dest: Path, **sides: list[str]) -> Path:
    """Write a store of another site with the same images, on these sides of its split."""
    cases = []
    for name, case in source.cases.items():
        if any(name in given for given in sides.values()):
            shutil.copytree(source.path / "cases" / name, dest / "cases" / f"new-{name}")
            cases.append(case.model_copy(update={"case_id": f"new-{name}", "group": f"g-{name}"}))
    info = source.info.model_copy(update={"site": "new", "cases": tuple(cases)})
    named = {side: tuple(f"new-{name}" for name in sides.get(side, ())) for side in SPLITS}
    splits = source.splits.model_copy(update={"cases_digest": cases_digest(cases), **named})
    (dest / "store.json").write_text(info.model_dump_json(), encoding="utf-8")
    (dest / "splits.json").write_text(splits.model_dump_json(), encoding="utf-8")
    return dest


def test_images_that_were_trained_on_are_no_new_ones_under_another_name(
    finished, site_stores, tmp_path
):
    old = site_stores["us-b"].splits
    leak = under_other_names(site_stores["us-b"], tmp_path / "leak", test=[*old.test, old.train[0]])
    options = AdaptOptions(cases=(0,), steps=1)
    for score in (
        lambda out: evaluate_run(finished.path, [leak], out, model=None, split="test"),
        lambda out: evaluate_run(finished.path, [leak], out, model=None, split="all"),
        lambda out: evaluate_shifts(finished.path, [leak], out, model=None, split="test"),
    ):
        with pytest.raises(FlamesError, match=r"1 of the cases of .* was trained on") as caught:
            score(tmp_path / "out")
        assert f"case {old.train[0]!r} of site 'us-b'" in caught.value.found
        assert not (tmp_path / "out").exists()
    sides = {"train": [old.test[1]], "test": [old.val[0]]}
    joined = under_other_names(site_stores["us-b"], tmp_path / "joined", **sides)
    with pytest.raises(FlamesError, match=f"{old.val[0]!r} of site 'us-b'"):
        adapt(finished.path, SiteStore.open(joined), tmp_path / "adapted", options)
    fine = under_other_names(
        site_stores["us-b"], tmp_path / "fine", train=[old.train[0]], test=[old.test[0]]
    )
    evaluate_run(finished.path, [fine], tmp_path / "scores", model=None, split="test")
    with pytest.raises(FlamesError, match="was trained on"):
        evaluate_run(finished.path, [fine], tmp_path / "all", model=None, split="all")


def test_sites_whose_images_cannot_be_compared_are_named(
    finished, site_stores, write_store, tmp_path
):
    new = write_store(tmp_path / "new", site="new").path
    assert sites_not_compared(finished.path, [new]) == []
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished.path, run.path)
    text = run.config.read_text(encoding="utf-8")
    run.config.write_text(text.replace(str(site_stores["us-a"].path), str(tmp_path / "gone")))
    assert sites_not_compared(run.path, [new]) == ["us-a"]
    assert sites_not_compared(run.path, [site_stores["us-b"].path]) == []
    said = CliRunner().invoke(
        app, ["evaluate", str(run.path), "--site", str(new), "--out", str(tmp_path / "out")]
    )
    assert said.exit_code == 0
    assert said.stderr.startswith("warning: Nobody compared")
    assert said.stderr.rstrip().endswith(": us-a")
