"""Sites of a run, and who trained: the same, but where sites are pooled."""

from pathlib import Path

import pytest

from flames.errors import FlamesError
from flames.reports.records import Records, load_records
from flames.runs import RunFolder


def records(summary, site):
    rounds = [{"kind": "site", "round": 1, "site": site, "modality": "US"}]
    return Records(RunFolder(Path("run")), "", {}, {}, rounds, summary, [])


def test_pools_train_and_sites_are_listed():
    pooled = records({"sites": {"a": {"modality": "US"}, "b": {"modality": "US"}}}, "central-US")
    assert list(pooled.sites()) == ["a", "b"]
    assert list(pooled.clients()) == ["central-US"]


def test_an_unfinished_run_knows_its_sites_from_the_rounds():
    assert records({}, "a").sites() == {"a": {"modality": "US"}}


def test_the_folder_of_a_comparison_is_no_run_and_the_error_says_how_it_is_reported(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "report.html").write_text("of a comparison", encoding="utf-8")
    with pytest.raises(FlamesError, match="is not a run folder") as found:
        load_records(RunFolder(tmp_path))
    assert "--report-only" in (found.value.remedy or "")
