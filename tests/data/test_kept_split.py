"""A store with more cases keeps the split of the one before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from case_records import record
from hypothesis import given, settings
from hypothesis import strategies as st
from source_folders import save, speckle, square

from flames.data.prepare import StoreRequest, add_store, fixed_sides
from flames.data.sources import SourceOptions
from flames.data.splits import split_cases
from flames.data.store import SPLITS, CaseRecord, SiteStore
from flames.errors import FlamesError

PAIRS = StoreRequest(
    "pairs",
    "north",
    "US",
    "breast",
    options=SourceOptions(images="images/*.png", masks="masks/*.png"),
)


def draw(source: Path, numbers: range | list[int]) -> Path:
    """Write one picture and its mask for each number."""
    for number in numbers:
        save(source / "images" / f"case-{number:02}.png", speckle(number))
        save(source / "masks" / f"case-{number:02}.png", square())
    return source


def sides(store: SiteStore) -> dict[str, str]:
    return {case.case_id: side for side in SPLITS for case in store.split(side)}


@pytest.fixture
def first(tmp_path: Path) -> SiteStore:
    return add_store(draw(tmp_path / "source", range(20)), tmp_path / "first", PAIRS).store


def later(first: SiteStore, tmp_path: Path, **changed: object) -> StoreRequest:
    return replace(PAIRS, keep_split=first.path, **changed)  # type: ignore[arg-type]


def test_known_cases_stay_and_new_ones_are_shared_out(first: SiteStore, tmp_path: Path) -> None:
    draw(tmp_path / "source", range(20, 40))
    plain = add_store(tmp_path / "source", tmp_path / "plain", PAIRS).store
    assert sides(plain).items() - sides(first).items() != sides(plain).items()
    assert not sides(first).items() <= sides(plain).items()  # drawn anew, cases move
    second = add_store(tmp_path / "source", tmp_path / "second", later(first, tmp_path)).store
    assert sides(first).items() <= sides(second).items()
    assert [len(second.split(side)) for side in SPLITS] == [24, 6, 10]


def test_the_same_call_again_changes_nothing_and_another_is_refused(
    first: SiteStore, tmp_path: Path
) -> None:
    draw(tmp_path / "source", range(20, 30))
    dest = tmp_path / "second"
    store = add_store(tmp_path / "source", dest, later(first, tmp_path)).store
    again = add_store(tmp_path / "source", dest, later(first, tmp_path))
    assert (again.prepared, again.kept) == (0, 30)
    assert again.store.splits == store.splits
    with pytest.raises(FlamesError, match="split with another --keep-split, or without one"):
        add_store(tmp_path / "source", dest, PAIRS)
    drawn_otherwise = replace(PAIRS, seed=7)  # the same cases on other sides
    other = add_store(draw(tmp_path / "old", range(20)), tmp_path / "other", drawn_otherwise).store
    with pytest.raises(FlamesError, match="split with another --keep-split, or without one"):
        add_store(tmp_path / "source", dest, later(other, tmp_path))


def test_a_new_picture_that_repeats_a_known_one_joins_its_side(
    first: SiteStore, tmp_path: Path
) -> None:
    known = first.split("test")[0].case_id
    number = int(known.rsplit("-", 1)[1])
    source = draw(tmp_path / "source", range(20, 24))
    save(source / "images" / "case-99.png", np.maximum(speckle(number), 1))
    save(source / "masks" / "case-99.png", square())
    store = add_store(source, tmp_path / "second", later(first, tmp_path)).store
    (new,) = set(store.cases) - set(first.cases) - {f"case-{n}" for n in range(20, 24)}
    assert store.cases[new].group == store.cases[known].group
    assert sides(store)[new] == "test"


def test_a_source_without_the_known_cases_is_refused(first: SiteStore, tmp_path: Path) -> None:
    source = draw(tmp_path / "other", range(20, 30))
    with pytest.raises(FlamesError, match="none of the 20 cases of"):
        add_store(source, tmp_path / "second", later(first, tmp_path))


def test_a_side_that_would_be_empty_is_refused(first: SiteStore, tmp_path: Path) -> None:
    numbers = [int(case.case_id.rsplit("-", 1)[1]) for case in first.split("train")]
    source = draw(tmp_path / "some", numbers)
    with pytest.raises(FlamesError, match="a side of the split would be empty"):
        add_store(source, tmp_path / "second", later(first, tmp_path))


def test_the_store_of_another_site_and_the_store_itself_are_refused(
    first: SiteStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    with pytest.raises(FlamesError, match="is the store of site 'north', not 'south'"):
        add_store(source, tmp_path / "second", later(first, tmp_path, site="south"))
    with pytest.raises(FlamesError, match="--keep-split and DEST are both"):
        add_store(source, first.path, later(first, tmp_path))


def of_patient(number: int, patient: str, group: str | None = None) -> CaseRecord:
    return record(number, group or patient).model_copy(update={"patient_id": patient})


class Known:
    """Stands for an earlier store."""

    path = Path("earlier")

    def __init__(self, **cases: list[CaseRecord]) -> None:
        self.cases = cases

    def split(self, side: str) -> list[CaseRecord]:
        return self.cases.get(side, [])


def test_a_patient_stays_where_it_was_though_its_earlier_cases_are_gone() -> None:
    earlier = Known(train=[of_patient(1, "ann")], test=[of_patient(2, "ben")])
    found = fixed_sides([of_patient(3, "ann"), of_patient(4, "eve")], earlier)  # type: ignore[arg-type]
    assert found == {"ann": 0}


def test_a_picture_that_joins_two_sides_is_refused() -> None:
    earlier = Known(train=[of_patient(1, "ann")], test=[of_patient(2, "ben")])
    cases = [of_patient(1, "ann", "x"), of_patient(2, "ben", "x"), of_patient(3, "eve", "x")]
    with pytest.raises(FlamesError, match=r"case-1, case-2, case-3 belong together now, .* train"):
        fixed_sides(cases, earlier)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    old=st.integers(3, 30), new=st.integers(0, 30), seed=st.integers(0, 5), other=st.integers(0, 5)
)
def test_what_is_fixed_stays_and_shares_are_kept_where_they_can(
    old: int, new: int, seed: int, other: int
) -> None:
    cases = [of_patient(n, f"p{n}") for n in range(old + new)]
    before = split_cases(cases[:old], seed=seed)
    fixed = {
        f"p{case.rsplit('-', 1)[1]}": number
        for number, side in enumerate(SPLITS)
        for case in getattr(before, side)
    }
    after = split_cases(cases, seed=other, fixed=fixed)
    for side, share in zip(SPLITS, after.fractions, strict=True):
        assert set(getattr(before, side)) <= set(getattr(after, side))
        most = max(len(getattr(before, side)), share * len(cases) + 1)
        assert len(getattr(after, side)) <= most
