from __future__ import annotations

import pytest

from flames.errors import FlamesError
from flames.federation.study import MADE_OF, WORKS, claim, digest_of, load_scores, refuse_others
from flames.runs import load_csv, save_csv

MINE = {"steps": 2, "site_stores": {"a": "1", "b": "2"}}


def test_a_study_goes_on_in_its_own_folder_only(tmp_path):
    record = tmp_path / "out" / "study.json"
    claim(record, MINE)
    claim(record, MINE)
    with pytest.raises(FlamesError, match="made with another steps") as error:
        claim(record, MINE | {"steps": 3})
    assert "--out" in error.value.remedy
    with pytest.raises(FlamesError, match=r"another site stores \(b\)"):
        claim(record, MINE | {"site_stores": {"a": "1", "b": "3"}})
    with pytest.raises(FlamesError, match=r"does not say with which flip"):
        claim(record, MINE | {"flip": True})


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "drawn").write_text("", encoding="utf-8")
    (tmp_path / "out" / ".study.json.partial").write_text("{", encoding="utf-8")  # killed
    with pytest.raises(FlamesError, match="holds no such study"):
        claim(tmp_path / "out" / "study.json", MINE)
    claim(tmp_path / "out" / "study.json", MINE, beside={"drawn"})
    with pytest.raises(FlamesError, match="is not an empty folder"):
        claim(tmp_path / "out" / "drawn" / "study.json", MINE)


@pytest.mark.parametrize("content", [b"", b'{"steps": 2', b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_told_and_left_as_it_is(tmp_path, content):
    record = tmp_path / "study.json"
    record.write_bytes(content)
    with pytest.raises(FlamesError, match=r"study\.json is damaged") as error:
        claim(record, MINE)
    assert "--out" in error.value.remedy
    assert record.read_bytes() == content


def kept(store, path):
    rows = [
        {"site": store.site, "modality": "US", "organ": "o", "case_id": c, "group": c, "dice": 0.5}
        for c in store.splits.test
    ]
    save_csv(path, rows)
    return path


def test_whole_scores_are_kept(site_stores, tmp_path):
    path = kept(site_stores["us-a"], tmp_path / "scores.csv")
    assert load_scores(path, site_stores["us-a"]) == load_csv(path)
    assert load_scores(path, site_stores["us-b"]) is None
    assert load_scores(tmp_path / "none.csv", site_stores["us-a"]) is None


def test_scores_that_were_made_of_something_else_are_made_again(site_stores, tmp_path):
    store = site_stores["us-a"]
    said = digest_of([store], "model", 64)
    others = digest_of([store], "model", 32), digest_of([store, site_stores["us-b"]], "model", 64)
    assert said == digest_of([store], "model", 64)
    assert said not in others
    path = kept(store, tmp_path / "scores.csv")
    assert load_scores(path, store, made_of=said), "what a file does not say is not compared"
    save_csv(path, [row | {MADE_OF: said} for row in load_csv(path)])
    assert load_scores(path, store, made_of=said) == load_csv(path)
    for other in others:
        assert load_scores(path, store, made_of=other) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: b"\x00\xff" + data,
        lambda data: data[: len(data) // 2],
        lambda data: data[: data.index(b"\n") + 1],
        lambda data: data.replace(b"dice", b"iou"),
        lambda data: data.replace(b"0.5", b"half"),
        lambda data: data.replace(b"0.5", b"0.5,0.5"),
    ],
)
def test_damaged_scores_are_not_taken(site_stores, tmp_path, damage):
    path = kept(site_stores["us-a"], tmp_path / "scores.csv")
    path.write_bytes(damage(path.read_bytes()))
    assert load_scores(path, site_stores["us-a"]) is None


@pytest.mark.parametrize("own", ["plan.json", "tables/overview.csv"])
@pytest.mark.parametrize("other", WORKS)
def test_a_report_is_not_written_over_that_of_another_study(tmp_path, own, other):
    runs = [tmp_path / "flames-0", tmp_path / "flames-1"]
    refuse_others(tmp_path / "new", own=own, runs=runs)
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("", encoding="utf-8")
    if other == own:
        refuse_others(tmp_path, own=own, runs=runs)
        return
    with pytest.raises(FlamesError, match=f"holds {WORKS[other]}"):
        refuse_others(tmp_path, own=own, runs=runs)
    runs[1].mkdir()  # a study that was stopped here goes on
    refuse_others(tmp_path, own=own, runs=runs)
