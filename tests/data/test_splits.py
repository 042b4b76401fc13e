from __future__ import annotations

from collections import defaultdict

import pytest
from case_records import record
from hypothesis import given, settings
from hypothesis import strategies as st

from flames.data.splits import split_cases
from flames.data.store import SPLITS, CaseRecord, SplitInfo
from flames.errors import FlamesError


def sizes(split: SplitInfo) -> list[int]:
    return [len(getattr(split, name)) for name in SPLITS]


@st.composite
def stores(draw: st.DrawFn) -> list[CaseRecord]:
    groups = draw(st.lists(st.integers(1, 6), min_size=3, max_size=25))
    cases: list[CaseRecord] = []
    for g, size in enumerate(groups):
        for _ in range(size):
            category = draw(st.sampled_from([None, "benign", "malignant"]))
            cases.append(record(len(cases), f"group-{g}", draw(st.booleans()), category))
    return cases


@settings(max_examples=80, deadline=None)
@given(cases=stores(), seed=st.integers(0, 9), data=st.data())
def test_no_group_is_on_two_sides_and_order_does_not_matter(
    cases: list[CaseRecord], seed: int, data: st.DataObject
) -> None:
    split = split_cases(cases, seed=seed)
    groups = {case.case_id: case.group for case in cases}
    sides = defaultdict(set)
    named = []
    for name in SPLITS:
        assert getattr(split, name)
        for case_id in getattr(split, name):
            sides[groups[case_id]].add(name)
            named.append(case_id)
    assert all(len(names) == 1 for names in sides.values())
    assert sorted(named) == sorted(groups)
    assert split_cases(data.draw(st.permutations(cases)), seed=seed) == split


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(3, [1, 1, 1]), (4, [2, 1, 1]), (5, [3, 1, 1]), (8, [5, 1, 2]), (10, [6, 2, 2]),
     (100, [60, 15, 25])],
)  # fmt: skip
def test_small_sites_have_every_side(count: int, wanted: list[int]) -> None:
    assert sizes(split_cases([record(i, f"p{i}") for i in range(count)], seed=0)) == wanted


def test_tumours_and_categories_are_shared_evenly() -> None:
    kinds = [("benign", True)] * 40 + [("malignant", True)] * 20 + [("normal", False)] * 20
    cases = [record(i, f"g{i}", t, c) for i, (c, t) in enumerate(kinds)]
    split = split_cases(cases, seed=1)
    by_id = {case.case_id: case for case in cases}
    counts = [
        [sum(by_id[c].category == kind for c in getattr(split, name)) for name in SPLITS]
        for kind in ("benign", "malignant", "normal")
    ]
    assert counts == [[24, 6, 10], [12, 3, 5], [12, 3, 5]]


def test_many_rare_categories_do_not_all_go_to_train() -> None:
    cases = [record(i, f"g{i}", True, f"kind-{i}") for i in range(40)]
    assert sizes(split_cases(cases, seed=0)) == [24, 6, 10]


def test_the_seed_chooses() -> None:
    cases = [record(i, f"g{i}") for i in range(30)]
    assert split_cases(cases, seed=0).test != split_cases(cases, seed=1).test


def test_two_groups_are_for_testing_only() -> None:
    assert sizes(split_cases([record(i, f"g{i % 2}") for i in range(8)], seed=0)) == [0, 0, 8]


@pytest.mark.parametrize("fractions", [(0.6, 0.4, 0.0), (0.6, 0.3, 0.3), (1.2, -0.1, -0.1)])
def test_fractions_are_shares(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(FlamesError, match="shares of 1"):
        split_cases([record(i, f"g{i}") for i in range(8)], seed=0, fractions=fractions)
