from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from flames.config import ModelConfig
from flames.errors import FlamesError
from flames.inference.pictures import draw_gallery, outline
from flames.inference.score import ScoreOptions, TrainedModel, load_model, score_store
from flames.metrics.presence import PresenceRule
from flames.models import make_model
from flames.models.precision import choose_precision
from flames.models.weights import model_arrays, save_arrays

FLOAT32 = choose_precision("float32")
OPTIONS = ScoreOptions(batch_size=4, flip=False, nsd_tolerance=2.0)


class Bright(nn.Module):
    def forward(self, image):
        return image * 20


def trained(modality):
    return TrainedModel(f"server:{modality}", "server", modality, 64, Bright())


def score(modality, store, **options):
    given = ScoreOptions(**(vars(OPTIONS) | options))
    return [
        one.row
        for one in score_store(
            trained(modality), store, site="here", precision=FLOAT32, options=given
        )
    ]


def test_every_test_case_is_scored_once(site_stores):
    store = site_stores["mr-a"]
    rows = score("MR", store)
    assert [row["case_id"] for row in rows] == [case.case_id for case in store.split("test")]
    first, empty = rows[0], rows[-1]
    assert (first["model"], first["site"], first["modality"]) == ("server:MR", "here", "MR")
    assert first["dice"] > 0.8
    assert first["tumour_present"] == 1
    assert empty["tumour_present"] == 0
    assert first["distance_unit"] == "mm"


def test_another_side_can_be_scored(site_stores):
    store = site_stores["us-a"]
    assert len(score("US", store, split="train")) == 4


def test_a_model_for_all_scores_every_modality(site_stores):
    assert all(score("all", store) for store in site_stores.values())


def test_a_case_below_the_presence_threshold_gets_an_empty_mask(site_stores):
    store = site_stores["mr-a"]
    before = score("MR", store)
    between = (min(row["presence_score"] for row in before) + before[0]["presence_score"]) / 2
    model = replace(trained("MR"), presence=PresenceRule(between))
    after = list(score_store(model, store, site="here", precision=FLOAT32, options=OPTIONS))
    kept = [row["presence_score"] >= between for row in before]
    assert True in kept
    assert False in kept
    for one, row, keep in zip(after, before, kept, strict=True):
        assert one.row["presence_score"] == row["presence_score"]
        assert one.row["dice"] == row["dice"] if keep else not one.prediction.any()


def test_a_store_of_another_modality_is_refused(site_stores):
    with pytest.raises(FlamesError, match=r"trained on CT, .* holds US"):
        score("CT", site_stores["us-a"])


def metadata(**changes):
    known = {
        "network": ModelConfig().model_dump_json(),
        "image_size": 48,
        "name": "server:US",
        "kind": "server",
        "modality": "US",
    }
    return {key: value for key, value in (known | changes).items() if value is not None}


def test_a_model_is_loaded_from_its_file_alone(tmp_path):
    torch.manual_seed(2)
    network = make_model(ModelConfig()).eval()
    save_arrays(tmp_path / "m", model_arrays(network), metadata())
    model = load_model(tmp_path / "m", FLOAT32)
    assert (model.name, model.kind, model.modality, model.image_size) == (
        "server:US",
        "server",
        "US",
        48,
    )
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.network.eval()(image), network(image))


@pytest.mark.parametrize(
    "changes", [{"network": None}, {"network": '{"name": "other"}'}, {"image_size": "big"}]
)
def test_a_file_that_does_not_say_its_network_is_refused(tmp_path, changes):
    save_arrays(tmp_path / "m", {"w": np.ones(1)}, metadata(**changes))
    with pytest.raises(FlamesError, match="does not say which network"):
        load_model(tmp_path / "m", FLOAT32)


def test_a_file_with_weights_of_another_network_is_refused(tmp_path):
    save_arrays(tmp_path / "m", {"w": np.ones(1, np.float32)}, metadata())
    with pytest.raises(FlamesError, match="not of this network"):
        load_model(tmp_path / "m", FLOAT32)


def test_a_file_with_weights_that_are_not_finite_is_refused(tmp_path):
    wrong = {
        name: array * np.nan for name, array in model_arrays(make_model(ModelConfig())).items()
    }
    save_arrays(tmp_path / "m", wrong, metadata())
    with pytest.raises(FlamesError, match=r"m has weights that are not finite: array .* more are"):
        load_model(tmp_path / "m", FLOAT32)


def test_a_model_whose_probabilities_are_not_numbers_is_refused(site_stores):
    class Overflowing(Bright):
        def forward(self, image):
            return image * torch.inf - image * torch.inf

    model = replace(trained("MR"), network=Overflowing())
    with pytest.raises(FlamesError, match="server:MR gives probabilities that are not numbers"):
        list(score_store(model, site_stores["mr-a"], site="x", precision=FLOAT32, options=OPTIONS))


def test_a_gallery_shows_best_median_and_worst(site_stores, tmp_path):
    from PIL import Image

    store = site_stores["mr-a"]
    rows = score("MR", store)
    index = draw_gallery(
        tmp_path / "p", trained("MR"), store, rows, precision=FLOAT32, options=OPTIONS
    )
    assert [one["rank"] for one in index] == ["best", "median", "worst"]
    dice = {one["rank"]: one["dice"] for one in index}
    assert dice["best"] >= dice["median"] >= dice["worst"]
    for one in index:
        with Image.open(tmp_path / "p" / one["file"]) as picture:
            assert picture.mode == "RGB"
            # 20·26 in-plane, columns across: taller than wide
            assert picture.size == (197, 256)


def test_outlines_are_inner_edges():
    label, found = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    label[1:6, 1:6] = True
    found[2:4, 6:8] = True
    picture = outline(np.full((8, 8), -1.0), label, found)
    coloured = (picture != 0).any(-1)
    assert coloured.sum() == 16 + 4
    assert not coloured[2:5, 2:5].any()
    assert picture[1, 1].tolist() == [0, 158, 115]
    assert picture[2, 6].tolist() == [230, 159, 0]
