from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from flames.config import TrainingConfig
from flames.errors import FlamesError
from flames.federation import distillation
from flames.federation.distillation import DistilOptions, Variant, distil, open_classroom
from flames.inference.cost import cost
from flames.inference.score import load_model
from flames.models.precision import choose_precision
from flames.models.student import Told, tell
from flames.models.weights import load_arrays
from flames.reports.distillation import overview_lines, write_distillation
from flames.runs import load_csv

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

    path = write_distillation(tmp_path, name="test", made_up_images=False)
    assert "Student minus teacher" in path.read_text(encoding="utf-8")
    table = (tmp_path / "tables" / "scores.tex").read_text(encoding="utf-8")
    scores = load_csv(tmp_path / "tables" / "scores.csv")
    for row in (row for row in scores if row["model"] == "teacher"):
        assert f"{row['site']} & {row['n']} & " in table
    lines = {line[0]: line for line in overview_lines(tmp_path)}
    assert set(lines) == {"teacher", "told-labels", "untold-nolabels"}

    monkeypatch.setattr(distillation, "train", None)
    monkeypatch.setattr(distillation, "score_store", None)
    assert distil(finished.path, stores, tmp_path, OPTIONS) == rows
    with pytest.raises(FlamesError, match="another steps"):
        distil(finished.path, stores, tmp_path, replace(OPTIONS, steps=16))


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
    one, other = (
        {n: load_arrays(tmp_path / study / "models" / f"{n}.safetensors")
         for n in ("untold-nolabels", "told-labels")}
        for study in "ab"
    )  # fmt: skip
    np.testing.assert_equal(one["untold-nolabels"], other["untold-nolabels"])
    assert any((one["told-labels"][n] != other["told-labels"][n]).any() for n in one["told-labels"])


def test_a_server_without_images_draws_some(finished, tmp_path):
    options = replace(OPTIONS, modality="US")
    room = open_classroom(finished.path, [], tmp_path, options)
    assert room.made_up
    assert set(room.server) == {"US"}
    assert all(store.info.made_up for store in room.server["US"])
    mine = {case.arrays_sha256 for store in room.server["US"] for case in store.info.cases}
    theirs = {case.arrays_sha256 for store in room.sites.values() for case in store.info.cases}
    assert not mine & theirs


def test_what_cannot_teach_is_refused(finished, site_stores, stores, tmp_path):
    with pytest.raises(FlamesError, match="not a run folder"):
        distil(tmp_path, stores, tmp_path / "o", OPTIONS)
    with pytest.raises(FlamesError, match="no server model of CT"):
        distil(finished.path, stores, tmp_path / "o", replace(OPTIONS, modality="CT"))
    with pytest.raises(FlamesError, match="more than a quarter"):
        distil(finished.path, stores, tmp_path / "o", replace(OPTIONS, student="unet"))
    with pytest.raises(FlamesError, match="owns no images of MR"):
        distil(finished.path, [site_stores["us-a"].path], tmp_path / "o", OPTIONS)


def test_costs_are_counted(finished):
    model = load_model(finished.server_model("US"), choose_precision("float32"))
    found = cost(model, "teacher")
    arrays = load_arrays(finished.server_model("US"))
    assert found["parameters"] == sum(a.size for a in arrays.values())
    assert found["weights_mb"] == pytest.approx(4e-6 * found["parameters"], abs=1e-3)
    assert found["activations_mb"] > 0
    assert found["ms_in_batch"] > 0


def test_what_it_is_told_matters():
    from flames.models import told_student

    torch.manual_seed(0)
    network, image = told_student().eval(), torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        said = []
        for modality in ("US", "MR"):
            tell(network, modality)
            said.append(network(image))
    assert not torch.equal(*said)
