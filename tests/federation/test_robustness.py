from __future__ import annotations

import pytest

from flames.errors import FlamesError
from flames.federation.robustness import evaluate_shifts
from flames.inference.shifts import SHIFTS
from flames.reports.robustness import write_robustness
from flames.runs import load_csv


def test_a_model_under_every_shift(finished, site_stores, tmp_path):
    site = site_stores["us-b"].path
    rows = evaluate_shifts(finished.path, [site], tmp_path, model=None, split="test")
    assert {r["shift"] for r in rows} == {"none", *SHIFTS}
    assert len(rows) == 3 * (1 + 2 * len(SHIFTS))
    plain = {r["case_id"]: r["dice"] for r in rows if r["shift"] == "none"}
    known = {
        r["case_id"]: r["dice"] for r in finished.load_cases()
        if r["model"] == "server:US" and r["site"] == "us-b"
    }  # fmt: skip
    assert plain == known
    page = write_robustness(tmp_path, name="test", seed=0)
    text = page.read_text(encoding="utf-8")
    assert all(f"{shift} strong" in text for shift in SHIFTS)
    lost = load_csv(tmp_path / "tables" / "lost.csv")
    assert {r["strategy"] for r in lost} == {f"{s} {x}" for s in SHIFTS for x in ("mild", "strong")}
    with pytest.raises(FlamesError, match="unknown split"):
        evaluate_shifts(finished.path, [site], tmp_path, model=None, split="all")
    with pytest.raises(FlamesError, match="trained on US"):
        evaluate_shifts(
            finished.path, [site_stores["mr-a"].path], tmp_path, model="server:US", split="test"
        )
