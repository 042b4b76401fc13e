from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flames.cli.main import app
from flames.config import ModelConfig, TrainingConfig
from flames.errors import FlamesError
from flames.federation import distillation
from flames.federation.classroom import DistilOptions, Variant, open_classroom
from flames.federation.distillation import distil
from flames.federation.simulation import simulate
from flames.inference.cost import cost
from flames.inference.score import load_model
from flames.inference.validation import validation_of
from flames.models.precision import choose_precision
from flames.models.student import Told, tell, with_modality
from flames.models.weights import load_arrays, load_metadata, model_arrays
from flames.processes import held
from flames.reports.distillation import overview_lines, write_distillation
from flames.runs import load_csv
from flames.strategies.mixture import CHANCE

SMALL = TrainingConfig(batch_size=2, learning_rate=0.01, precision="float32")
BOTH = (Variant(told=True, labels=True), Variant(told=False, labels=False))
OPTIONS = DistilOptions(variants=BOTH, steps=8, training=SMALL, made_up_cases=12)


@pytest.fixture(scope="module", autouse=True)
def _small_student():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["flames.models.student"], "FILTERS", (2, 3, 4))
        yield


@pytest.fixture
def stores(site_stores):
    return [store.path for store in site_stores.values()]


def without_stores(finished, run):
    """Return a copy of a run as a consortium has it: its sites keep their stores to themselves."""
    shutil.copytree(finished.path, run, ignore=shutil.ignore_patterns("state"))
    text = (run / "config.toml").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if not line.startswith("store = ")]
    away = re.sub(r", store = \"[^\"]*\"", "", "\n".join(kept))
    (run / "config.toml").write_text(away, encoding="utf-8")
    return run


def test_where_no_site_is_here_scores_are_on_the_servers_test_cases(finished, stores, tmp_path):
    run = without_stores(finished, tmp_path / "run")
    rows = distil(run, stores, tmp_path / "out", OPTIONS)
    assert {r["site"] for r in rows} == {"us-a", "us-b", "mr-a"}
    page = write_distillation(tmp_path / "out", name="test").read_text(encoding="utf-8")
    assert "No site’s store is here" in page
    here = distil(finished.path, stores, tmp_path / "here", OPTIONS)
    assert sorted(map(str, here)) == sorted(map(str, rows))
    page = write_distillation(tmp_path / "here", name="test").read_text(encoding="utf-8")
    assert "No site’s store is here" not in page


def test_where_no_site_is_here_stores_of_one_name_are_refused(
    finished, stores, write_store, tmp_path
):
    """A server that owns images of two modalities is one site, and each has to be scored."""
    run = without_stores(finished, tmp_path / "run")
    owned = [
        write_store(tmp_path / "us", site="server", seed=7).path,
        write_store(
            tmp_path / "mr", site="server", modality="MR", shape=(20, 26, 4), slice_axis=2, seed=8
        ).path,
    ]
    with pytest.raises(FlamesError, match="are both of site 'server'"):
        distil(run, owned, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
    distil(finished.path, owned, tmp_path / "here", replace(OPTIONS, variants=BOTH[1:]))


def test_students_beside_their_teachers(finished, stores, tmp_path, monkeypatch):
    rows = distil(finished.path, stores, tmp_path, OPTIONS)
    assert {r["student"] for r in rows} == {"teacher", "told-labels", "untold-nolabels"}
    for name in ("teacher", "told-labels", "untold-nolabels"):
        assert sorted(r["site"] for r in rows if r["student"] == name) == sorted(
            site for site in ("us-a", "us-b", "mr-a") for _ in range(3)
        )
    known = {
        (r["site"], r["case_id"]): r["dice"] for r in finished.load_cases()
        if r["model_kind"] == "server"
    }  # fmt: skip
    found = {(r["site"], r["case_id"]): r["dice"] for r in rows if r["student"] == "teacher"}
    assert found == known
    told = load_model(tmp_path / "models" / "told-labels.safetensors", choose_precision("float32"))
    assert isinstance(told.network, Told)
    assert told.modality == "all"

    page = write_distillation(tmp_path, name="test").read_text(encoding="utf-8")
    assert "Student minus teacher" in page
    assert "us-a on teacher: " in page  # what is said of the picture
    assert "One student for MR and US" in page
    table = (tmp_path / "tables" / "scores.tex").read_text(encoding="utf-8")
    # Every test case is counted, with a Dice that is defined or without.
    for site, cases in {"us-a": 3, "us-b": 3, "mr-a": 3, "mean over sites": 9}.items():
        assert f"{site} & {cases} & " in table
        assert f'class="site">{site}</th><td class="n">{cases}</td>' in page
    lines = {line[0]: line for line in overview_lines(tmp_path)}
    assert set(lines) == {"teacher", "told-labels", "untold-nolabels"}

    monkeypatch.setattr(distillation, "train", None)
    monkeypatch.setattr(distillation, "score_store", None)
    assert distil(finished.path, stores, tmp_path, OPTIONS) == rows
    with pytest.raises(FlamesError, match="another steps"):
        distil(finished.path, stores, tmp_path, replace(OPTIONS, steps=16))


@pytest.mark.parametrize(("lead", "newest"), [(0.9, True), (1.1, False)])
def test_a_student_ends_with_its_newest_weights(
    finished, stores, tmp_path, monkeypatch, lead, newest
):
    """Unless earlier ones lead by more than the chance of validation cases of two modalities."""
    options = replace(OPTIONS, variants=BOTH[:1])
    judged = {"MR": 2, "US": 4}  # three stores with two validation cases
    chance = CHANCE * (sum(1 / n for n in judged.values()) / 4) ** 0.5
    looks, weights = [], []

    def look(student, tables, **_):
        if len(looks) % 2 == 0:
            weights.append(model_arrays(student))
        looks.append(sum(len(t.rows_by_case) for t in tables))
        scores = [0.1, 0.2, 0.5, 0.3, 0.2, 0.1, 0.2, 0.5 - lead * chance]
        return validation_of([scores[len(weights) - 1]], [True], [0.9])

    monkeypatch.setattr(distillation, "validate", look)
    distil(finished.path, stores, tmp_path, options)
    assert looks == list(judged.values()) * 8
    kept = load_arrays(tmp_path / "models" / "told-labels.safetensors")
    np.testing.assert_equal(kept, weights[-1 if newest else 2])
    assert any((weights[-1][name] != weights[2][name]).any() for name in kept)


def test_draws_and_name_are_those_of_the_run(finished, tmp_path, monkeypatch):
    asked = {}

    def write(out, **named):
        asked.update(named)
        return out / "report.html"

    monkeypatch.setattr(distillation, "distil", lambda *_, **__: [])
    monkeypatch.setattr("flames.reports.distillation.write_distillation", write)
    monkeypatch.setattr("flames.reports.distillation.overview_lines", lambda _: [])
    monkeypatch.chdir(finished.path)
    told = CliRunner().invoke(app, ["distill", ".", "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    assert asked == {"resamples": 100, "name": finished.path.name}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], "told-nolabels untold-nolabels"),  # made-up images: their labels spoil a student
        (
            ["--store", "owned"],
            "told-labels told-nolabels told-alone untold-labels untold-nolabels untold-alone",
        ),
        (["--labels", "both", "--told", "yes"], "told-labels told-nolabels told-alone"),
        (["--told", "yes", "--labels", "yes"], "told-labels told-alone"),
        (["--told", "no", "--labels", "no"], "untold-nolabels"),
        (["--no-alone", "--labels", "yes"], "told-labels untold-labels"),
        (["--modality", "US", "--store", "owned"], "untold-labels untold-nolabels untold-alone"),
    ],
)
def test_students_that_are_asked_for(finished, tmp_path, monkeypatch, words, names):
    asked = []
    monkeypatch.setattr(distillation, "distil", lambda *given, **_: asked.append(given[3]))
    monkeypatch.setattr("flames.reports.distillation.write_distillation", lambda *_, **__: "page")
    monkeypatch.setattr("flames.reports.distillation.overview_lines", lambda _: [])
    told = CliRunner().invoke(
        app, ["distill", str(finished.path), "--out", str(tmp_path / "out"), *words]
    )
    assert told.exit_code == 0, told.output
    assert [variant.name for variant in asked[0].variants] == names.split()


def taught_in(study):
    return {path.stem: load_arrays(path) for path in (study / "models").glob("*.safetensors")}


def test_without_labels_labels_change_nothing(finished, write_store, tmp_path):
    def stores(name, change=None):
        shapes = {"US": ((24, 36), None), "MR": ((20, 26, 4), 2)}
        return [
            write_store(tmp_path / name / modality, site=modality, modality=modality, shape=shape,
                        slice_axis=axis, change=change).path
            for modality, (shape, axis) in shapes.items()
        ]  # fmt: skip

    def empty(_image, label):
        label[:] = 0

    distil(finished.path, stores("drawn"), tmp_path / "a", OPTIONS)
    distil(finished.path, stores("empty", empty), tmp_path / "b", OPTIONS)
    one, other = (taught_in(tmp_path / study) for study in "ab")
    np.testing.assert_equal(one["untold-nolabels"], other["untold-nolabels"])
    assert any((one["told-labels"][n] != other["told-labels"][n]).any() for n in one["told-labels"])


def test_a_student_alone_hears_no_teacher(finished, site_stores, make_config, tmp_path):
    """Other teachers change nothing for it, and its loss is that of the labels."""
    other = simulate(make_config("us-b", stores=site_stores, seed=5), tmp_path / "run")
    stores = [site_stores["us-b"].path]
    alone, beside = Variant(False, True, teacher=False), Variant(False, True)
    options = replace(OPTIONS, variants=(alone, beside), modality="US")
    for out, run in (("a", finished.path), ("b", other.path)):
        distil(run, stores, tmp_path / out, options)
    one, two = (taught_in(tmp_path / out) for out in "ab")
    np.testing.assert_equal(one["untold-alone"], two["untold-alone"])
    assert any((one["untold-labels"][n] != a).any() for n, a in two["untold-labels"].items())
    said = {
        variant.name: load_metadata(tmp_path / "a" / "models" / f"{variant.name}.safetensors")
        for variant in (alone, beside)
    }
    assert said["untold-alone"]["teachers"] == "[]"
    assert said["untold-labels"]["teachers"] == '["US"]'
    distil(finished.path, stores, tmp_path / "c", replace(options, variants=(beside,), share=0.0))
    np.testing.assert_equal(taught_in(tmp_path / "c")["untold-labels"], one["untold-alone"])

    page = write_distillation(tmp_path / "a", name="test").read_text(encoding="utf-8")
    assert "What the teachers gave" in page
    page = write_distillation(tmp_path / "c", name="test").read_text(encoding="utf-8")
    assert "What the teachers gave" not in page
    gave = {
        r["site"]: r for r in load_csv(tmp_path / "a" / "tables" / "paired.csv")
        if r["reference"] == "untold-alone"
    }  # fmt: skip
    assert {r["strategy"] for r in gave.values()} == {"untold-labels"}
    dice = {
        (r["model"], r["site"]): float(r["mean"])
        for r in load_csv(tmp_path / "a" / "tables" / "scores.csv")
    }
    site = "mean over sites"
    apart = dice["untold-labels", site] - dice["untold-alone", site]
    assert float(gave[site]["mean"]) == pytest.approx(apart, abs=2e-6)


def test_a_site_prepared_again_is_refused(write_store, make_config, tmp_path):
    site = {"us-x": write_store(tmp_path / "us-x", site="us-x", seed=1)}
    run = simulate(make_config("us-x", stores=site, rounds=1), tmp_path / "run")
    server = [write_store(tmp_path / "server", site="server", seed=3).path]
    options = replace(OPTIONS, variants=BOTH[1:], steps=8)
    rows = distil(run.path, server, tmp_path / "out", options)
    shutil.rmtree(tmp_path / "us-x")
    write_store(tmp_path / "us-x", site="us-x", seed=2)
    for out in ("out", "new"):
        with pytest.raises(FlamesError, match=r"us-x changed since .*run was made"):
            distil(run.path, server, tmp_path / out, options)
    shutil.rmtree(tmp_path / "us-x")
    write_store(tmp_path / "us-x", site="us-x", seed=1)
    assert distil(run.path, server, tmp_path / "out", options) == rows
    path = tmp_path / "us-x" / "splits.json"
    splits = json.loads(path.read_text(encoding="utf-8"))
    splits["val"], splits["test"] = splits["test"], splits["val"]
    path.write_text(json.dumps(splits), encoding="utf-8")
    with pytest.raises(FlamesError, match="us-x was split anew since"):
        distil(run.path, server, tmp_path / "new", options)


@pytest.mark.parametrize("other", ["window", "split"])
def test_a_store_that_teaches_otherwise_is_another_study(finished, write_store, tmp_path, other):
    """Students of one table have the same lessons: a finished one is not taught again."""
    store = write_store(tmp_path / "server", site="server", seed=7)
    options = replace(OPTIONS, variants=BOTH[1:], modality="US")
    distil(finished.path, [store.path], tmp_path / "out", options)
    name = "store.json" if other == "window" else "splits.json"
    said = json.loads((store.path / name).read_text(encoding="utf-8"))
    if other == "window":
        said["cases"] = [case | {"intensity": [0.0, 90.0]} for case in said["cases"]]
    else:
        said["train"], said["val"] = said["train"][:2], said["train"][2:] + said["val"]
    (store.path / name).write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(FlamesError, match="made with another server stores"):
        distil(finished.path, [store.path], tmp_path / "out", options)


def test_a_store_that_teaches_with_a_sites_test_cases_is_refused(finished, write_store, tmp_path):
    options = replace(OPTIONS, variants=BOTH[1:], modality="US")
    # The first six of us-a's nine cases, under another name: of its three test cases none, or one.
    part = write_store(tmp_path / "part", site="gift", counts=(4, 1, 1), free=0, seed=1)
    open_classroom(finished.path, [part.path], tmp_path / "out", options)
    part = write_store(tmp_path / "more", site="gift", counts=(4, 3, 1), free=0, seed=1)
    with pytest.raises(FlamesError, match="test case 'us-a-06' of us-a is case 'gift-06'") as found:
        distil(finished.path, [part.path], tmp_path / "out", options)
    assert "of its val side" in found.value.found
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_damaged_is_made_again(finished, site_stores, tmp_path):
    options = replace(OPTIONS, variants=BOTH[1:], modality="US")
    stores = [site_stores["us-a"].path]
    rows = distil(finished.path, stores, tmp_path, options)
    for name in ("teacher", "untold-nolabels"):
        (tmp_path / "scores" / f"{name}-us-b.csv").write_text("", encoding="utf-8")
    (tmp_path / "scores" / "untold-nolabels-us-a.csv").write_text("of another", encoding="utf-8")
    (tmp_path / "models" / "untold-nolabels.safetensors").unlink()
    assert distil(finished.path, stores, tmp_path, options) == rows
    (tmp_path / "distil.json").write_text("", encoding="utf-8")
    with pytest.raises(FlamesError, match="damaged"):
        distil(finished.path, stores, tmp_path, options)


@pytest.mark.parametrize("made_up", [True, False])
def test_the_report_says_whose_images_were_scored(write_store, make_config, tmp_path, made_up):
    site = {"us-x": write_store(tmp_path / "us-x", site="us-x", made_up=made_up)}
    run = simulate(make_config("us-x", stores=site, rounds=1), tmp_path / "run")
    server = [write_store(tmp_path / "server", site="server", made_up=not made_up).path]
    distil(run.path, server, tmp_path / "out", replace(OPTIONS, variants=BOTH[1:]))
    page = write_distillation(tmp_path / "out", name="test").read_text(encoding="utf-8")
    assert ("The data are made-up" in page) is made_up
    assert "One student for US, taught by the server’s model of US" in page
    assert json.loads((tmp_path / "out" / "distil.json").read_text())["made_up"] is False


def test_a_server_without_images_draws_some(finished, tmp_path):
    options = replace(OPTIONS, modality="US")
    room = open_classroom(finished.path, [], tmp_path, options)
    assert room.made_up
    assert set(room.server) == {"US"}
    assert all(store.info.made_up for store in room.server["US"])
    mine = {case.arrays_sha256 for store in room.server["US"] for case in store.info.cases}
    theirs = {case.arrays_sha256 for store in room.sites.values() for case in store.info.cases}
    assert not mine & theirs


def test_images_that_another_process_draws_are_left_alone(finished, tmp_path):
    """It would delete them as those of a stopped drawing."""
    begun = tmp_path / "made-up" / "us-breast" / "cases"
    begun.mkdir(parents=True)
    with (
        held(tmp_path / "made-up"),
        pytest.raises(FlamesError, match=f"made-up is in use by process {os.getpid()}"),
    ):
        distil(finished.path, [], tmp_path, OPTIONS)
    assert begun.exists()


def test_what_cannot_teach_is_refused(finished, site_stores, stores, tmp_path):
    with pytest.raises(FlamesError, match="not a run folder"):
        distil(tmp_path, stores, tmp_path / "o", OPTIONS)
    with pytest.raises(FlamesError, match="no server model of CT"):
        distil(finished.path, stores, tmp_path / "o", replace(OPTIONS, modality="CT"))
    with pytest.raises(FlamesError, match="more than a quarter"):
        distil(finished.path, stores, tmp_path / "o", replace(OPTIONS, student="unet"))
    with pytest.raises(FlamesError, match="owns no images of MR"):
        distil(finished.path, [site_stores["us-a"].path], tmp_path / "o", OPTIONS)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(FlamesError, match="is not an empty folder"):
        distil(finished.path, stores, tmp_path / "file", OPTIONS)


def test_costs_are_counted(finished):
    model = load_model(finished.server_model("US"), choose_precision("float32"))
    found = cost(model, "teacher")
    arrays = load_arrays(finished.server_model("US"))
    assert found["parameters"] == sum(a.size for a in arrays.values())
    assert found["weights_mb"] == pytest.approx(4e-6 * found["parameters"], abs=1e-3)
    assert found["activations_mb"] > 0
    assert found["ms_in_batch"] > 0


def test_it_can_learn_from_being_told_alone():
    from flames.models import told_student

    torch.manual_seed(0)
    network, image = told_student(), torch.randn(2, 1, 64, 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.03)
    wanted = {"US": 1.0, "MR": 0.0}
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    for _ in range(40):
        for modality, target in wanted.items():
            logits = network(with_modality(image, modality))
            optimizer.zero_grad()
            loss(logits, torch.full_like(logits, target)).backward()
            optimizer.step()
    found = {}
    for modality in (*wanted, "CT"):
        tell(network.eval(), modality)
        found[modality] = torch.sigmoid(network(image)).mean().item()
        # What is told by name and what is told by channels is the same.
        assert torch.equal(network(image), network(with_modality(image, modality)))
    assert found["US"] > 0.9, found
    assert found["MR"] < 0.1


def test_no_pixel_of_an_image_is_unseen():
    from flames.models import make_model

    for name in ("student", "told-student"):
        network = make_model(ModelConfig(name=name, pretrained=False)).eval()
        image = torch.randn(1, 1, 64, 64, requires_grad=True)
        network(image).square().sum().backward()
        assert (image.grad != 0).all(), name
