"""Sites of a run, and who trained: the same, but where sites are pooled."""

from pathlib import Path

from flames.reports.records import Records
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
