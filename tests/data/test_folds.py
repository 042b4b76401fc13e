"""Cross-validation: every case is a test case once, and no patient is on two sides."""

from __future__ import annotations

import pytest

from flames.data.folds import in_fold
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError


def sides(store: SiteStore) -> dict[str, set[str]]:
    return {side: {case.case_id for case in store.split(side)} for side in SPLITS}


@pytest.fixture(scope="module")
def store(write_store, tmp_path_factory) -> SiteStore:
    """Return a store of 14 cases of 11 patients."""
    place = tmp_path_factory.mktemp("folds") / "us"
    store = write_store(place, site="us", counts=(8, 2, 4), free=3)
    double = {"us-01": "us-00", "us-02": "us-00", "us-11": "us-10"}  # the same side of its split
    cases = [
        case.model_copy(update={"group": store.cases[double.get(case.case_id, case.case_id)].group})
        for case in store.info.cases
    ]
    info = store.info.model_copy(update={"cases": tuple(cases)})
    return SiteStore(store.path, info, store.splits)


@pytest.mark.parametrize("folds", [3, 4, 11])
def test_every_case_is_tested_once_and_no_patient_is_on_two_sides(store, folds):
    tested = []
    for fold in range(folds):
        found = sides(in_fold(store, folds, fold))
        assert all(found.values())
        assert set.union(*found.values()) == set(store.cases)
        assert sum(map(len, found.values())) == len(store.cases)
        of = {name: {store.cases[case].group for case in cases} for name, cases in found.items()}
        assert not of["train"] & of["val"] | of["train"] & of["test"] | of["val"] & of["test"]
        tested += sorted(found["test"])
    assert sorted(tested) == sorted(store.cases)


def test_a_fold_is_the_same_each_time_and_leaves_the_store_as_it_was(store):
    before = sides(store)
    assert sides(in_fold(store, 4, 1)) == sides(in_fold(store, 4, 1))
    assert sides(store) == before
    assert in_fold(store, 0, 0) is store


def test_the_rest_is_shared_as_the_stores_own_split_shares_it(write_store, tmp_path):
    store = write_store(tmp_path / "us", site="us", counts=(24, 6, 10), free=0)
    store = SiteStore(
        store.path,
        store.info,
        store.splits.model_copy(update={"fractions": (0.6, 0.15, 0.25)}),
    )
    found = sides(in_fold(store, 4, 2))
    assert [len(found[side]) for side in SPLITS] == [24, 6, 10]


def test_too_few_patients_are_refused_with_what_would_do(store, write_store, tmp_path):
    with pytest.raises(FlamesError, match="11 patients or groups") as error:
        in_fold(store, 12, 0)
    assert "11 folds or fewer" in error.value.remedy
    two = write_store(tmp_path / "two", site="two", counts=(1, 0, 1), free=0)
    with pytest.raises(FlamesError, match="too few") as error:
        in_fold(two, 3, 0)
    assert "3 are needed" in error.value.remedy
