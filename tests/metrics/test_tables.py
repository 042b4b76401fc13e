"""Rows of cases become scores and means."""

from __future__ import annotations

import csv
import io
import json
import random
from typing import Any

import numpy as np
import pytest

from flames.metrics.cases import score_case
from flames.metrics.paired import paired_difference_over_sites
from flames.metrics.statistics import bootstrap_interval
from flames.metrics.tables import (
    groups_by_site,
    mean_table,
    score_table,
    summary_tables,
    values_by_site,
)


def _row(site: str, case: str, dice: float | None, **changes: Any) -> dict[str, Any]:
    row = {
        "model": f"personal:{site}",
        "model_kind": "personal",
        "site": site,
        "modality": site[:2].upper(),
        "organ": site[3:],
        "hospital": None,
        "case_id": case,
        "group": case,
        "label_voxels": 10,
        "prediction_voxels": 8,
        "dice": dice,
        "iou": None if dice is None else dice / (2 - dice),
        "hd95": 4.0,
        "nsd": 0.5,
        "distance_unit": "mm",
        "nsd_tolerance": 2.0,
        "volume_error": -0.5,
        "volume_unit": "ml",
        "presence_score": 0.9,
        "tumour_present": 1,
        "tumour_predicted": 1,
    }
    return row | changes


CLEAR = {"hd95": None, "nsd": None, "tumour_present": 0, "tumour_predicted": 0}
ROWS = [
    _row("us-breast", "b1", 0.8, hd95=3.0),
    _row("us-breast", "b2", 0.6, hd95=6.0, presence_score=0.7),
    _row("us-breast", "b3", 0.0, hd95=None, tumour_predicted=0, presence_score=0.2),
    _row("us-breast", "b4", None, presence_score=0.1, **CLEAR),
    _row("us-breast", "b5", None, presence_score=0.3, **CLEAR),
    _row("us-breast", "b6", 0.0, presence_score=0.8, **(CLEAR | {"tumour_predicted": 1})),
    _row("us-ovary", "o1", 0.9),
    _row("us-ovary", "o2", 0.5),
    _row("mr-brain", "m1", 0.4),
]


def _as_text(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return list(csv.DictReader(io.StringIO(buffer.getvalue())))


def test_a_site_by_hand() -> None:
    score = next(s for s in score_table(ROWS, seed=1) if s["site"] == "us-breast")
    assert score["model"] == "personal:us-breast"
    assert score["model_kind"] == "personal"
    assert (score["modality"], score["organ"], score["cases"]) == ("US", "breast", 6)
    assert score["dice"]["mean"] == pytest.approx((0.8 + 0.6 + 0 + 0) / 4)
    assert score["dice"]["n"] == 4
    assert score["hd95"]["mean"] == pytest.approx(4.5)
    assert score["hd95"]["n"] == 2
    assert score["volume_error"]["n"] == 6
    assert (score["distance_unit"], score["volume_unit"]) == ("mm", "ml")
    assert (score["empty_and_clear"], score["missed"], score["false_alarm"]) == (2, 1, 1)
    assert score["presence"] == {
        # Of 3·3 pairs, 0.9 wins three, 0.7 two, 0.2 one.
        "auc": pytest.approx(6 / 9),
        "sensitivity": pytest.approx(2 / 3),
        "specificity": pytest.approx(2 / 3),
        "with_tumour": 3,
        "without_tumour": 3,
    }


def test_a_site_with_tumour_only_has_no_auc() -> None:
    score = next(s for s in score_table(ROWS, seed=1) if s["site"] == "us-ovary")
    assert score["presence"]["auc"] is None
    assert score["presence"]["specificity"] is None
    assert score["presence"]["sensitivity"] == 1


def test_the_interval_of_a_site_is_that_of_its_cases() -> None:
    score = next(s for s in score_table(ROWS, seed=7) if s["site"] == "us-breast")
    assert score["dice"] == bootstrap_interval([0.8, 0.6, 0.0, 0.0], seed=7).as_dict()


def test_means_are_over_sites() -> None:
    means = {m["group"]: m for m in mean_table(ROWS, seed=1)}
    assert list(means) == ["all sites", "MR", "US"]
    assert means["US"]["dice"]["mean"] == pytest.approx((0.35 + 0.7) / 2)
    assert means["all sites"]["dice"]["mean"] == pytest.approx((0.35 + 0.7 + 0.4) / 3)
    assert (means["all sites"]["sites"], means["all sites"]["dice"]["n"]) == (3, 7)
    assert means["MR"]["dice"] == {"mean": 0.4, "low": 0.4, "high": 0.4, "n": 1}
    presence = means["all sites"]["presence"]
    assert presence["auc"] == pytest.approx(6 / 9)  # one site defines it
    assert presence["sensitivity"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert (presence["with_tumour"], presence["without_tumour"]) == (6, 3)


def test_different_units_are_not_averaged() -> None:
    pixels = {"distance_unit": "px", "volume_unit": "px"}
    rows = [
        _row("us-a", "1", 0.5),
        _row("us-b", "2", 0.7, **pixels),
        _row("us-b", "3", 0.8, **pixels),
    ]
    mean = mean_table(rows, seed=1)[0]
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    assert mean["dice"]["mean"] == pytest.approx((0.5 + 0.75) / 2)
    assert mean["hd95"] == mean["nsd"] == mean["volume_error"] == nothing
    assert mean["distance_unit"] is None
    assert mean["volume_unit"] is None
    by_site = {s["site"]: s for s in score_table(rows, seed=1)}
    assert by_site["us-b"]["hd95"]["n"] == 2
    assert by_site["us-b"]["distance_unit"] == "px"


def test_different_tolerances_are_not_averaged() -> None:
    rows = [_row("us-a", "1", 0.5), _row("us-a", "2", 0.5, nsd_tolerance=1.0)]
    score = score_table(rows, seed=1)[0]
    assert score["nsd"]["n"] == 0
    assert score["hd95"]["n"] == 2


def test_patients_with_several_cases_are_drawn_whole() -> None:
    rows = [
        _row("us-a", f"{i}", 0.3 if i < 3 else 0.9, group="p" if i < 3 else "q") for i in range(5)
    ]
    patients = ["p", "p", "p", "q", "q"]
    expected = bootstrap_interval([0.3] * 3 + [0.9] * 2, seed=1, groups=patients)
    assert score_table(rows, seed=1)[0]["dice"] == expected.as_dict()
    assert mean_table(rows, seed=1)[0]["dice"] == expected.as_dict()
    unknown = [row | {"group": ""} for row in rows]
    by_case = bootstrap_interval([0.3] * 3 + [0.9] * 2, seed=1)
    assert score_table(unknown, seed=1)[0]["dice"] == by_case.as_dict()


def test_several_models_of_a_kind_on_one_case_draw_the_case_once() -> None:
    rows = [_row("us-a", "1", 0.3), _row("us-a", "2", 0.5)]
    rows += [row | {"model": "personal:us-b"} for row in rows]
    assert [s["cases"] for s in score_table(rows, seed=1)] == [2, 2]
    mean = mean_table(rows, seed=1)[0]["dice"]
    assert (mean["low"], mean["high"]) == pytest.approx((0.3, 0.5))


def test_text_gives_what_values_give() -> None:
    assert summary_tables(_as_text(ROWS), seed=1) == summary_tables(ROWS, seed=1)


def test_the_order_of_rows_changes_nothing() -> None:
    shuffled = ROWS.copy()
    random.Random(1).shuffle(shuffled)
    assert summary_tables(shuffled, seed=1) == summary_tables(ROWS, seed=1)


def test_tables_are_plain_json() -> None:
    tables = summary_tables(ROWS, seed=1)
    assert json.loads(json.dumps(tables, allow_nan=False)) == tables
    assert summary_tables([], seed=1) == {"scores": [], "means": []}


def test_kinds_of_models_stay_apart() -> None:
    server = [row | {"model": "server:US", "model_kind": "server"} for row in ROWS[:2]]
    kinds = [(s["model_kind"], s["model"]) for s in score_table(ROWS + server, seed=1)]
    assert kinds == [
        ("personal", "personal:mr-brain"),
        ("personal", "personal:us-breast"),
        ("personal", "personal:us-ovary"),
        ("server", "server:US"),
    ]
    groups = [(m["model_kind"], m["group"]) for m in mean_table(ROWS + server, seed=1)]
    assert groups[-2:] == [("server", "all sites"), ("server", "US")]


def test_two_runs_are_compared_case_by_case() -> None:
    better = [row | {"dice": None if row["dice"] is None else row["dice"] + 0.1} for row in ROWS]
    a, b = (values_by_site(rows, "dice", model_kind="personal") for rows in (better, ROWS))
    difference = paired_difference_over_sites(a, b, seed=1, groups_by_site=groups_by_site(ROWS))
    assert (difference.low, difference.mean, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    assert difference.n == 7
    with pytest.raises(ValueError, match="two personal models"):
        values_by_site(ROWS + ROWS, "dice", model_kind="personal")


def test_the_row_of_a_case_fits_the_table() -> None:
    label = np.zeros((8, 8), bool)
    label[2:5, 2:6] = True
    score = score_case(label, label, spacing=(1, 1), spacing_unit="px", presence_score=0.5)
    row = _row("us-a", "1", 0.1) | score.as_row()
    assert set(row) == set(_row("us-a", "1", 0.1))
    record = score_table(_as_text([row]), seed=1)[0]
    assert record["dice"]["mean"] == 1
    assert record["volume_unit"] == "px"
