from __future__ import annotations

import pytest

from flames.metrics.comparison import (
    MEAN,
    by_repetition,
    calibration_rows,
    case_values,
    harmed,
    paired_rows,
    presence_rows,
    site_scores,
    worst_site,
)
from flames.metrics.paired import FEWEST

SITES = {"big": 8, "small": 2}


def row(site, case, dice, *, present=1, predicted=1, score=0.5, kind="personal"):
    return {
        "model": f"{kind}:{site}", "model_kind": kind, "site": site, "case_id": case,
        "group": case, "dice": dice, "tumour_present": present, "tumour_predicted": predicted,
        "presence_score": score,
    }  # fmt: skip


def values(level, sites=SITES, *, wobble=0.01):
    return {
        site: {f"{site}{n}": level + wobble * n for n in range(count)}
        for site, count in sites.items()
    }


GROUPS = {site: {f"{site}{n}": f"{site}{n}" for n in range(c)} for site, c in SITES.items()}


def test_seeds_draw_the_same_cases():
    one, other = values(0.2, wobble=0), values(0.8, wobble=0)
    scores = site_scores(by_repetition([one, other]), GROUPS, seed=1, resamples=100)
    # Each seed is constant: an interval over cases knows no spread, whatever seeds did.
    for r in scores:
        assert (r["mean"], r["low"], r["high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_a_case_is_defined_by_seed():
    tables = [[row("a", "x", "")], [row("a", "x", "")]]
    assert case_values(tables, "dice", model_kind="personal") == {"a": {"x": (None, None)}}
    tables[1] = [row("a", "x", "0.4")]
    assert case_values(tables, "dice", model_kind="personal") == {"a": {"x": (None, 0.4)}}


def test_the_mean_is_over_sites_not_cases():
    scores = site_scores(
        {"big": dict.fromkeys(GROUPS["big"], 0.1), "small": dict.fromkeys(GROUPS["small"], 0.9)},
        GROUPS,
        seed=1,
        resamples=100,
    )
    assert scores[-1]["site"] == MEAN
    assert scores[-1]["mean"] == pytest.approx(0.5)
    assert worst_site(scores)["site"] == "big"


def test_differences_are_strategy_minus_reference_and_corrected():
    found = paired_rows(
        {"ours": values(0.5), "worse": values(0.3), "same": values(0.5), "better": values(0.6)},
        GROUPS,
        reference="ours",
        seed=1,
        resamples=200,
    )
    means = {r["strategy"]: r for r in found if r["site"] == MEAN}
    assert {k: round(r["mean"], 6) for k, r in means.items()} == {
        "worse": -0.2, "same": 0.0, "better": 0.1,
    }  # fmt: skip
    # Two differences at the smallest p and one of none: Holm multiplies by 3, 2 and 1.
    smallest = means["worse"]["p_value"]
    assert means["worse"]["p_holm"] == pytest.approx(3 * smallest)
    assert means["same"]["p_holm"] == means["same"]["p_value"] == 1


def test_a_site_of_few_patients_is_not_tested():
    found = paired_rows(
        {"ours": values(0.5), "worse": values(0.3)}, GROUPS, reference="ours", seed=1, resamples=100
    )
    tested = {r["site"]: r["p_value"] is not None for r in found if r["site"] != MEAN}
    assert tested == {"big": True, "small": False}
    assert SITES["small"] < FEWEST <= SITES["big"]
    assert harmed(found, "worse") == {"below": 2, "clearly": 1, "sites": 2}


def test_an_interval_without_an_end_harms_nobody_clearly():
    open_ended = {"strategy": "worse", "site": "a", "mean": -0.2, "low": -0.3, "high": None}
    found = harmed([open_ended | {"p_value": 0.06}], "worse")
    assert found == {"below": 1, "clearly": 0, "sites": 1}


def test_one_patient_who_differs_harms_no_site_clearly():
    ours = values(0.5)
    worse = ours | {"big": ours["big"] | {"big0": 0.4}}
    found = paired_rows({"ours": ours, "worse": worse}, GROUPS, reference="ours", seed=0)
    big = next(r for r in found if r["site"] == "big")
    assert (big["p_value"], big["high"]) == (1.0, 0.0)
    assert harmed(found, "worse") == {"below": 1, "clearly": 0, "sites": 2}
    loose = {"strategy": "worse", "site": "a", "mean": -0.2, "low": -0.3, "high": -1e-9}
    assert harmed([loose | {"p_value": 0.2}], "worse")["clearly"] == 0


def test_images_of_one_patient_do_not_make_many():
    groups = GROUPS | {"big": dict.fromkeys(GROUPS["big"], "one patient")}
    found = paired_rows(
        {"ours": values(0.5), "worse": values(0.3)}, groups, reference="ours", seed=1, resamples=100
    )
    assert all(r["p_value"] is None for r in found if r["site"] == "big")


def test_few_patients_at_all_sites_together_are_not_tested():
    patients = {"big": dict.fromkeys(GROUPS["big"], "one patient"), "small": GROUPS["small"]}
    both = {"ours": values(0.5), "worse": values(0.3)}
    few = paired_rows(both, patients, reference="ours", seed=1, resamples=100)
    many = paired_rows(both, GROUPS, reference="ours", seed=1, resamples=100)
    assert [r["p_value"] for r in few if r["site"] == MEAN] == [None]
    assert [r["p_holm"] for r in few if r["site"] == MEAN] == [None]
    assert [r["p_value"] is None for r in many if r["site"] == MEAN] == [False]


def test_a_case_that_both_leave_undefined_is_no_patient():
    both = {"ours": values(0.5), "worse": values(0.3)}
    for side in both.values():
        side["big"] |= dict.fromkeys(("big0", "big1", "big2"))
    found = paired_rows(both, GROUPS, reference="ours", seed=1, resamples=100)
    big, mean = (next(r for r in found if r["site"] == site) for site in ("big", MEAN))
    assert (big["n"], big["p_value"]) == (5, None)
    assert (mean["n"], mean["p_value"] is None) == (7, False)


def test_presence_needs_both_kinds_of_cases():
    table = [
        row("a", "1", 0.5, score=0.9),
        row("a", "2", 0.5, score=0.4, predicted=0),
        row("a", "3", 0.5, present=0, score=0.6),
        row("b", "4", 0.5, score=0.9),
    ]
    found = {r["site"]: r for r in presence_rows([table, table], model_kind="personal")}
    assert (found["a"]["auc"], found["a"]["sensitivity"], found["a"]["specificity"]) == (
        0.5,
        0.5,
        0,
    )
    assert found["b"]["auc"] is None
    assert found[MEAN]["auc"] == 0.5
    assert found[MEAN]["sensitivity"] == 0.75
    assert presence_rows([table], model_kind="server") == []


def test_calibration_weighs_sites_alike():
    rows = [
        {"model": "personal:a", "site": "a", "bin": "0", "pixels": "1000", "probability": "10",
         "tumour": "0"},
        {"model": "personal:b", "site": "b", "bin": "10", "pixels": "10", "probability": "5.2",
         "tumour": "8"},
        {"model": "server:US", "site": "a", "bin": "19", "pixels": "9", "probability": "9",
         "tumour": "0"},
    ]  # fmt: skip
    found, pooled = calibration_rows([rows], model_kind="personal")
    errors = {r["site"]: r["ece"] for r in found}
    assert errors == pytest.approx({"a": 0.01, "b": 0.28, MEAN: 0.145})
    assert pooled[:, 0].tolist()[0] == pooled[:, 0].tolist()[10] == 1
    assert calibration_rows([[]], model_kind="personal") == ([], None)
