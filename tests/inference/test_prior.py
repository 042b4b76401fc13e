from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flames.data.prior import spatial_prior
from flames.inference.prior import score_prior
from flames.inference.score import ScoreOptions
from flames.metrics.cases import dice
from flames.models.precision import choose_precision

FLOAT32 = choose_precision("float32")


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", ["us-a", "mr-a"])
def test_its_mask_is_the_same_whatever_the_image_shows(site_stores, name, flip):
    store = site_stores[name]
    mask = spatial_prior([store], 64)
    options = ScoreOptions(batch_size=4, flip=flip, nsd_tolerance=2.0)
    scored = list(score_prior(mask, store, site=name, precision=FLOAT32, options=options))
    assert [one.case for one in scored] == list(store.split("test"))
    assert {one.row["model_kind"] for one in scored} == {"prior"}
    for one in scored:
        prediction, label = one.prediction, np.asarray(store.label(one.case.case_id))
        assert prediction.shape == label.shape
        assert prediction.any()
        assert np.array_equal(prediction, scored[0].prediction)
        assert one.row["dice"] == pytest.approx(dice(prediction, label))


def test_it_is_made_of_training_cases_alone(site_stores):
    store = site_stores["us-a"]
    mask = spatial_prior([store], 64)
    splits = store.splits.model_copy(update={"val": (), "test": ()})
    assert np.array_equal(spatial_prior([replace(store, splits=splits)], 64), mask)
