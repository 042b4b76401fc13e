from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flames.data.prior import spatial_prior
from flames.inference.predict import predict_case
from flames.inference.prior import prior_model
from flames.inference.score import ScoreOptions, score_store
from flames.models.precision import choose_precision

FLOAT32 = choose_precision("float32")
OPTIONS = ScoreOptions(batch_size=4, flip=False, nsd_tolerance=2.0)


@pytest.mark.parametrize("name", ["us-a", "mr-a"])
def test_its_mask_is_the_same_whatever_the_image_shows(site_stores, name):
    store = site_stores[name]
    model = prior_model(spatial_prior([store], 64), FLOAT32)
    cases = store.split("test")
    masks = []
    for case in cases:
        probs, presence = predict_case(
            model.network, store, case, image_size=64, precision=FLOAT32, batch_size=4
        )
        masks.append(model.decide(probs, presence))
        assert masks[-1].shape == store.label(case.case_id).shape
        assert masks[-1].any()
    same = [mask for mask in masks if mask.shape == masks[0].shape]
    assert all(np.array_equal(mask, same[0]) for mask in same)
    rows = [
        scored.row
        for scored in score_store(model, store, site=name, precision=FLOAT32, options=OPTIONS)
    ]
    assert [row["case_id"] for row in rows] == [case.case_id for case in cases]
    assert {row["model_kind"] for row in rows} == {"prior"}
    assert {row["tumour_predicted"] for row in rows} == {1}


def test_it_is_made_of_training_cases_alone(site_stores):
    store = site_stores["us-a"]
    mask = spatial_prior([store], 64)
    splits = store.splits.model_copy(update={"val": (), "test": ()})
    assert np.array_equal(spatial_prior([replace(store, splits=splits)], 64), mask)
