from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from flames.cli.main import app
from flames.config import dump_config
from flames.data.prior import spatial_prior
from flames.errors import FlamesError
from flames.federation import generalisation
from flames.federation.batch import run_missing
from flames.federation.generalisation import (
    CLAIMS,
    PRIOR,
    check_apart,
    generalisation_jobs,
    parts_named,
    plan,
    save_plan,
    score_generalisation,
)
from flames.inference.prior import score_prior
from flames.inference.score import ScoreOptions
from flames.models.precision import choose_precision
from flames.reports.generalisation import _of, matrix_rows, write_generalisation
from flames.runs import RunFolder, load_csv

FLOAT32 = choose_precision("float32")


class Named:
    def __init__(self, modality, organ):
        self.modality, self.organ = modality, organ


def test_every_organ_and_hospital_is_left_out_once():
    stores = {
        "a": Named("MR", "brain"), "b": Named("MR", "brain"), "c": Named("MR", "limb"),
        "d": Named("US", "breast"), "e": Named("CT", "lung"), "f": Named("CT", "lung"),
    }  # fmt: skip
    parts, notes = plan(stores)
    found = {(p.modality, p.sites): (set(p.kinds), p.rest) for p in parts}
    assert found == {
        ("MR", ("a",)): ({"hospital"}, ("b", "c")),
        ("MR", ("b",)): ({"hospital"}, ("a", "c")),
        ("MR", ("c",)): ({"hospital", "organ"}, ("a", "b")),
        ("MR", ("a", "b")): ({"organ"}, ("c",)),
        ("CT", ("e",)): ({"hospital"}, ("f",)),
        ("CT", ("f",)): ({"hospital"}, ("e",)),
    }
    assert len({p.name for p in parts}) == len(parts)
    assert any("US has one site" in note for note in notes)
    assert any("CT has one organ" in note for note in notes)
    with pytest.raises(FlamesError, match="no site can be left out"):
        plan({"a": Named("MR", "brain"), "b": Named("US", "breast")})


def test_an_organ_named_like_a_site_is_another_part():
    stores = {
        "breast": Named("US", "breast"), "second": Named("US", "breast"),
        "ovary": Named("US", "ovary"),
    }  # fmt: skip
    parts, _ = plan(stores)
    found = {part.name: part.sites for part in parts}
    assert len(found) == len(parts) == 4
    assert found["US-breast"] == ("breast",)
    assert found["US-organ-breast"] == ("breast", "second")


def test_an_organ_that_hospitals_spell_otherwise_is_one_organ():
    stores = {
        "a": Named("MR", "Brain"), "b": Named("MR", " brain"), "c": Named("MR", "lower limb"),
        "d": Named("MR", "Lower  limb"),
    }  # fmt: skip
    parts, _ = plan(stores)
    assert {p.name: p.sites for p in parts if "organ" in p.kinds} == {
        "MR-Brain": ("a", "b"), "MR-lower limb": ("c", "d"),
    }  # fmt: skip


def test_a_study_may_be_only_a_part(site_stores):
    parts, _ = plan(site_stores)
    assert parts_named(parts, []) == parts
    assert [p.sites for p in parts_named(parts, ["US-us-b"])] == [("us-b",)]
    with pytest.raises(FlamesError, match="named 'US-us-c'") as error:
        parts_named(parts, ["US-us-c"])
    assert "US-us-" in error.value.remedy


def test_sites_that_share_an_image_are_refused(site_stores, write_store, tmp_path):
    check_apart(site_stores)
    twin = write_store(tmp_path / "twin", site="twin", counts=(2, 2, 3), seed=2)
    with pytest.raises(FlamesError, match="case 'twin-00' of twin is case 'us-b-00' of us-b"):
        check_apart(site_stores | {"twin": twin})
    seen = {"train": (), "val": (), "test": tuple(twin.cases)}
    known = [
        replace(store, splits=store.splits.model_copy(update=seen | {"test": tuple(store.cases)}))
        for store in (site_stores["us-b"], twin)
    ]
    check_apart(dict(zip("ab", known, strict=True)))


def test_the_command_refuses_them_before_anything_is_trained(
    make_config, site_stores, write_store, tmp_path
):
    # The same images on the same sides, which a run by itself may have.
    twin = write_store(tmp_path / "twin", site="twin", counts=(2, 2, 3), seed=2)
    config = make_config("us-b", "twin", stores={"us-b": site_stores["us-b"], "twin": twin})
    path = tmp_path / "federation.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    told = CliRunner().invoke(app, ["generalise", str(path), "--out", str(tmp_path / "out")])
    assert isinstance(told.exception, FlamesError), told.output
    assert "trained on" in told.exception.found
    assert not (tmp_path / "out").exists()


def test_a_strategy_without_a_modality_model_is_refused(make_config, site_stores, tmp_path):
    parts, _ = plan(site_stores)
    for name in ("local", "fedbn", "fedavg"):
        with pytest.raises(FlamesError, match="no model of a modality"):
            generalisation_jobs(make_config(strategy={"name": name}), parts, seeds=1, out=tmp_path)


def test_a_study_is_not_made_in_the_folder_of_a_run(make_config, site_stores, tmp_path):
    parts, _ = plan(site_stores)
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    with pytest.raises(FlamesError, match="holds a run"):
        generalisation_jobs(make_config(), parts, seeds=1, out=tmp_path)


def test_hospitals_whose_organ_others_hold_are_told_apart():
    rows = [{"kinds": kinds} for kinds in ("hospital", "hospital organ", "organ", "")]
    assert _of("organ", rows) == rows[1:3]
    assert _of("hospital", rows) == rows[:2]
    assert _of("known-organ", rows) == rows[:1]
    assert _of("known-organ", rows[:1]) == [], "the part on hospitals says it already"
    assert _of("known-organ", rows[1:]) == []


def test_draws_are_those_of_the_file(make_config, tmp_path, monkeypatch):
    asked = {}

    def write(out, **named):
        asked.update(named)
        return out / "report.html"

    monkeypatch.setattr("flames.cli.progress.run_jobs", lambda *_, **__: [])
    monkeypatch.setattr(generalisation, "score_generalisation", lambda *_, **__: [])
    monkeypatch.setattr("flames.reports.generalisation.write_generalisation", write)
    monkeypatch.setattr("flames.reports.generalisation.overview_lines", lambda _: [])
    path = tmp_path / "federation.toml"
    path.write_text(dump_config(make_config()), encoding="utf-8")
    words = ["generalise", str(path), "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert asked["resamples"] == 100


def test_no_model_ever_trained_where_it_is_tested(make_config, site_stores, tmp_path):
    config = make_config(rounds=1)
    parts, notes = plan(site_stores)
    jobs = generalisation_jobs(config, parts, seeds=1, out=tmp_path)
    for job in jobs:
        sites = {site.name for site in job.config.sites}
        for part in parts:
            if job.folder.name.endswith(f"-{part.name}-5"):
                assert not sites & set(part.sites)
                every = job.folder.name.startswith(("everything-", "alike-"))
                wanted = {"us-a", "us-b", "mr-a"} if every else part.rest
                if every:
                    by = {"everything": "fedavg", "alike": "uniform"}
                    assert job.config.strategy.name == by[job.folder.name.partition("-")[0]]
                assert sites == set(wanted) - set(part.sites)
    run_missing(jobs)
    save_plan(tmp_path / "plan.json", parts, notes)
    rows = score_generalisation(config, site_stores, parts, seeds=1, out=tmp_path)
    claimed = [row for row in rows if row["claim"] in CLAIMS]
    assert {(row["claim"], row["site"]) for row in claimed} == {
        (claim, site) for claim in CLAIMS for site in ("us-a", "us-b")
    }
    # Seen off-centre is all that never saw the site, in the same cases.
    seen = {
        view: [(r["claim"], r["site"], r["case_id"]) for r in rows if r["view"] == view]
        for view in ("whole", "off-centre")
    }
    assert seen["off-centre"] == [
        one
        for one in seen["whole"]
        if one[0] in ("server", "pooled", "everything", "alike", "prior")
    ]
    claimed = [row for row in claimed if row["view"] == "whole"]
    for row in claimed:
        assert (row["site"] in row["trained_on"].split()) is False
        assert row["case_id"] in getattr(site_stores[row["site"]].splits, row["split"])
    # What never saw a site is scored on all of it, what was trained there on its test cases.
    for row_of, sides in (
        (("server", "us-a"), {"train", "val", "test"}),
        (("pooled", "us-a"), {"train", "val", "test"}),
        (("everything", "us-a"), {"train", "val", "test"}),
        (("alike", "us-a"), {"train", "val", "test"}),
        (("own", "us-a"), {"test"}),
    ):
        found = [r for r in claimed if (r["claim"], r["site"]) == row_of]
        assert {r["split"] for r in found} == sides
        assert len(found) == sum(len(site_stores["us-a"].split(side)) for side in sides)
    for row in rows:
        if row["claim"] == "alone" and row["trained_on"] == row["site"]:
            assert row["split"] == "test"
    # No model has a prior: once for all seeds, and for it the other sites' masks alone count.
    prior = [row for row in rows if row["claim"] == PRIOR]
    mask = spatial_prior([site_stores["us-b"], site_stores["mr-a"]], config.data.image_size)
    options = ScoreOptions(batch_size=8, flip=True, nsd_tolerance=2.0, split="val")
    store = site_stores["us-a"]
    scored = score_prior(mask, store, site="us-a", precision=FLOAT32, options=options)
    known = {case.row["case_id"]: case.row["dice"] for case in scored}
    mine = [row for row in prior if row["site"] == "us-a" and row["view"] == "whole"]
    assert len(mine) == len(site_stores["us-a"].cases)
    assert {
        row["case_id"]: float(row["dice"]) for row in mine if row["split"] == "val"
    } == pytest.approx(known)
    options = replace(options, corners=0.7)
    scored = score_prior(mask, store, site="us-a", precision=FLOAT32, options=options)
    off = {case.row["case_id"]: case.row["dice"] for case in scored}
    assert off != pytest.approx(known)
    mine = [row for row in prior if row["site"] == "us-a" and row["view"] == "off-centre"]
    assert {
        row["case_id"]: float(row["dice"]) for row in mine if row["split"] == "val"
    } == pytest.approx(off)
    alone = {(r["trained_on"], r["site"]) for r in rows if r["claim"] == "alone"}
    assert alone == {
        ("us-a", "us-a"), ("us-a", "us-b"), ("us-b", "us-a"), ("us-b", "us-b"), ("mr-a", "mr-a"),
    }  # fmt: skip
    # The rest is one site: its server model is that site's own, scored elsewhere.
    server = [r["dice"] for r in claimed if r["claim"] == "server" and r["site"] == "us-a"]
    lone = [r["dice"] for r in rows if r["claim"] == "alone"
            and (r["trained_on"], r["site"]) == ("us-b", "us-a")]  # fmt: skip
    assert server == lone

    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "scores").iterdir()}
    again = score_generalisation(config, site_stores, parts, seeds=1, out=tmp_path)
    assert again == rows
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "scores").iterdir()} == kept
    empty, cut = sorted(kept)[:2]
    whole = {path: path.read_bytes() for path in kept}
    empty.write_bytes(b"")
    cut.write_bytes(b"".join(whole[cut].splitlines(keepends=True)[:3]))
    assert score_generalisation(config, site_stores, parts, seeds=1, out=tmp_path) == rows
    assert {path: path.read_bytes() for path in kept} == whole

    # A run that was made anew has another model, whose scores are others.
    models = RunFolder(tmp_path / "runs" / "own-5")
    shutil.copy(models.personal_model("us-b"), models.personal_model("us-a"))
    anew = score_generalisation(config, site_stores, parts, seeds=1, out=tmp_path)
    changed = {p.name for p in kept if p.read_bytes() != whole[p]}
    assert changed == {
        "own-US-us-a-us-a-5.csv", "alone-us-a-us-a-5.csv", "alone-us-a-us-b-5.csv"
    }  # fmt: skip
    assert anew != rows
    assert "made_of" not in anew[0]

    few = write_generalisation(
        tmp_path, name="test", config_text="", made_up=True, resamples=100
    ).read_bytes()
    (tmp_path / "tables" / "organ.tex").write_text("of organs left out before", encoding="utf-8")
    path = write_generalisation(tmp_path, name="test", config_text="", made_up=True)
    assert path.read_bytes() != few
    assert not (tmp_path / "tables" / "organ.tex").exists()
    page = path.read_text(encoding="utf-8")
    assert "A hospital that did not take part" in page
    assert "made-up" in page
    scores = load_csv(tmp_path / "tables" / "scores.csv")
    assert {row["claim"] for row in scores} == {*CLAIMS, PRIOR}
    table = (tmp_path / "tables" / "hospital.tex").read_text(encoding="utf-8")
    # Every case is counted, with a Dice that is defined or without: all twice, then the test's.
    counts = {"us-a": (9, 9, 3), "us-b": (7, 7, 3), "mean over sites": (16, 16, 6)}
    for part, text in enumerate(table.split("\\end{table}")[:3]):
        for site, cases in counts.items():
            assert f"{site} & {cases[part]} & " in text
            assert f'class="site">{site}</th><td class="n">{cases[part]}</td>' in page
    sets = {(row["on"], row["claim"]) for row in scores}
    columns = {*CLAIMS, PRIOR}
    unseen = {(on, c) for on in ("all", "off-centre") for c in columns - {"own"}}
    assert sets == {("test", c) for c in columns} | unseen
    paired = load_csv(tmp_path / "tables" / "paired.csv")
    both = {"all", "off-centre"}
    on = {"own": {"test"}} | dict.fromkeys(("pooled", "everything", "alike"), both)
    for reference, beside in (("server", {}), ("prior", {"server": {"all", "off-centre"}})):
        found = {}
        for row in paired:
            if row["reference"] == reference:
                found.setdefault(row["strategy"], set()).add(row["on"])
        assert found == on | beside
    assert "minus no image" in page
    means, sites = page.split("<summary>Site by site</summary>")[:2]
    assert "mean over sites</td>" in means
    assert "mean over sites</td>" not in sites.split("</details>")[0]
    for row in paired:
        theirs, mine = (
            next(
                float(s["mean"])
                for s in scores
                if (s["left_out"], s["site"]) == (row["left_out"], row["site"])
                and (s["on"], s["claim"]) == (row["on"], claim)
            )
            for claim in (row["reference"], row["strategy"])
        )
        assert float(row["mean"]) == pytest.approx(mine - theirs, abs=2e-6)
    matrix = load_csv(tmp_path / "tables" / "matrix.csv")
    assert {r["tested_on"] for r in matrix if r["seen"] == "True"} == {"us-a", "us-b", "mr-a"}


def test_a_cell_of_the_matrix_is_the_mean_of_its_seeds_means():
    start = {"claim": "server", "modality": "US", "left_out": "US-a", "site": "a"}
    start["view"] = "whole"
    rows = [
        start | {"seed": seed, "dice": dice}
        for seed, dice in (("0", "0.9"), ("0", "0.6"), ("0", "0.0"), ("1", "0.9"), ("1", ""))
    ]
    rows.append(start | {"seed": "0", "dice": "0.1", "view": "off-centre"})
    assert matrix_rows(rows)[0]["dice"] == pytest.approx((0.5 + 0.9) / 2)


def test_several_models_scored_at_a_time_give_the_same_rows(
    make_config, site_stores, tmp_path, monkeypatch
):
    config = make_config(rounds=1)
    parts, _ = plan(site_stores)
    parts = parts_named(parts, ["US-us-b"])
    with monkeypatch.context() as patch:
        # Workers know nothing of a network that the tests made smaller.
        patch.setattr(sys.modules["flames.models.unet"], "FILTERS", (16, 32, 64, 128, 256))
        run_missing(generalisation_jobs(config, parts, seeds=1, out=tmp_path))
        asked = {"seeds": 1, "out": tmp_path}
        told = []
        one = score_generalisation(config, site_stores, parts, **asked)
        whole = {p: p.read_bytes() for p in (tmp_path / "scores").iterdir()}
        for path in whole:
            path.unlink()
        two = score_generalisation(
            config, site_stores, parts, **asked, at_a_time=2, on_progress=lambda *n: told.append(n)
        )
        assert two == one
        assert {p: p.read_bytes() for p in whole} == whole
        assert [done for _, done, _ in told] == list(range(len(whole) + 1))
        damaged = tmp_path / "runs" / "pooled-US-us-b-5" / "models" / "US.safetensors"
        damaged.write_bytes(b"nothing")
        next(p for p in whole if p.name.startswith("pooled")).unlink()
        with pytest.raises(FlamesError, match=r"US\.safetensors"):
            score_generalisation(config, site_stores, parts, **asked, at_a_time=2)
