from __future__ import annotations

import csv
import json
import re
from io import StringIO

import pytest
from rich.console import Console

from flames.errors import FlamesError
from flames.files import save_json
from flames.metrics.comparison import MEAN
from flames.reports.compare import write_comparison
from flames.reports.compare.content import load_comparison
from flames.reports.compare.latex import latex_table
from flames.reports.compare.tables import presence_table
from flames.reports.compare.terminal import print_comparison
from flames.runs import RunFolder, load_csv, save_csv

from .conftest import make_run, save_picture  # type: ignore[import-not-found]


def table(folder):
    return {path.name: load_csv(path) for path in folder.glob("*.csv")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[RunFolder]:
    """Return runs of three strategies over the same cases; `local` a tenth worse everywhere."""
    root = tmp_path_factory.mktemp("runs")
    found = []
    for strategy, seed, shift in (
        ("flames", 7, 0.0), ("flames", 8, 0.02), ("local", 7, -0.1), ("modality", 7, 0.0),
    ):  # fmt: skip
        run = make_run(root / f"{strategy}-{seed}", strategy=strategy)
        save_json(run.summary, run.load_summary() | {"seed": seed})
        rows = run.load_cases()
        for row in rows:
            if row["dice"] not in ("", "0.0"):
                row["dice"] = str(float(row["dice"]) + shift)
            elif seed == 8 and row["case_id"].endswith("-010"):
                row["dice"] = "0.0"  # a false alarm in one seed of two
        save_csv(run.cases, rows)
        found.append(run)
    return found


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison")
    return write_comparison(out, runs, reference="flames")


def test_the_same_runs_give_the_same_bytes(runs, written, tmp_path):
    again = write_comparison(tmp_path, runs, reference="flames")
    assert again.read_bytes() == written.read_bytes()
    for path in (written.parent / "tables").iterdir():
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name


def test_no_table_is_left_of_strategies_that_are_not_asked_for_any_more(runs, tmp_path):
    write_comparison(tmp_path, runs, reference="flames")
    assert (tmp_path / "tables" / "scores-server.tex").exists()
    alone = make_run(tmp_path / "run", strategy="local")
    rows = [row for row in alone.load_cases() if row["model_kind"] == "personal"]
    save_csv(alone.cases, rows)
    summary = alone.load_summary()
    scores = [score for score in summary["scores"] if score["model_kind"] == "personal"]
    save_json(alone.summary, summary | {"scores": scores})
    alone.calibration.unlink(missing_ok=True)
    write_comparison(tmp_path, [alone], reference="local")
    assert (tmp_path / "tables" / "scores-personal.tex").exists()
    assert not (tmp_path / "tables" / "scores-server.tex").exists()


def test_the_terminal_calls_a_number_what_the_page_calls_it(written, tmp_path):
    tables = written.parent / "tables"
    rows = load_csv(tables / "overview.csv")
    rows[1] |= {"strategy": "modality-scaffold", "sites_below_local": "3", "ece": "0.069"}
    rows[1] |= {"sites_clearly_below_local": "1", "ece_raised": "0.095"}
    save_csv(tmp_path / "overview.csv", rows)
    save_csv(tmp_path / "scores.csv", load_csv(tables / "scores.csv"))
    console = Console(file=StringIO(), width=80)
    print_comparison(tmp_path, console)
    lines = console.file.getvalue().splitlines()
    assert lines[2].split() == ["Clearly", "ECE"]
    assert (
        " ".join(lines[3].split()) == "Strategy Dice Server Worst harmed AUC Spec. ≥ 0.05 Minutes"
    )
    (line,) = [line for line in lines if "modality-scaffold" in line]
    cells = line.split()
    assert (cells[4], cells[7]) == ("1", "0.095")


def test_tables_hold_what_was_measured(written):
    tables = table(written.parent / "tables")
    overview = {row["strategy"]: row for row in tables["overview.csv"]}
    assert list(overview) == ["flames", "local", "modality"]
    assert overview["flames"]["seeds"] == "2"
    assert float(overview["local"]["dice"]) < float(overview["modality"]["dice"])
    assert overview["local"]["sites_below_local"] == ""
    assert overview["flames"]["sites_below_local"] == "0"
    means = {
        r["strategy"]: r
        for r in tables["paired.csv"]
        if r["site"] == "mean over sites" and r["model"] == "personal"
    }
    for row in means.values():  # flames has two seeds, the others one
        beside = float(overview[row["strategy"]]["dice"]) - float(overview["flames"]["dice"])
        assert float(row["mean"]) == pytest.approx(beside, abs=2e-6)
    # flames is the mean of shifts 0 and 0.02: local lies 0.11 below, but for cases of
    # Dice 0, of which one a site is a false alarm of one seed.
    assert -0.111 < float(means["local"]["mean"]) < -0.08
    assert float(means["local"]["p_holm"]) < 0.05
    sites = {row["site"] for row in tables["scores.csv"]}
    assert len(sites) == 7
    assert len(tables["cases.csv"]) == len({(r["site"], r["case_id"]) for r in tables["cases.csv"]})


def test_the_page_is_whole_and_loads_nothing(written):
    page = written.read_text(encoding="utf-8")
    for part in ("overview", "sites", "paired", "speed", "presence", "calibration", "failures"):
        assert f'id="{part}"' in page
    assert not re.search(r"<(script|link|iframe)", page)
    assert "http://" not in page
    assert "https://" not in re.sub(r"https://example.org", "", page)
    assert "Validation Dice against bytes" in page
    assert "harm is not known here" not in page
    assert "Minutes,<br>all sites" in page
    assert "nan" not in page.lower().replace("finance", "")


def prior_of(run):
    """Return a row of the prior for each case, of Dice 0.25 where the case has one."""
    personal = [row for row in run.load_cases() if row["model_kind"] == "personal"]
    return [
        row | {"model_kind": "prior", "model": "prior", "dice": row["dice"] and "0.25"}
        for row in personal
    ]


def test_a_mask_that_does_not_look_stands_beside_strategies(runs, written, tmp_path):
    page = write_comparison(tmp_path, runs, reference="flames", prior=prior_of(runs[0]))
    assert page.read_text(encoding="utf-8").count('<th scope="col" class="n">no image</th>') == 1
    assert "What looking at images gives" in page.read_text(encoding="utf-8")
    assert "no image" in (tmp_path / "tables" / "scores-personal.tex").read_text(encoding="utf-8")
    tables, before = table(tmp_path / "tables"), table(written.parent / "tables")
    mine = [row for row in tables["scores.csv"] if row["strategy"] == "no image"]
    assert {float(row["mean"]) for row in mine} == {0.25}
    assert len(mine) == 7
    scores = {
        (row["strategy"], row["site"]): float(row["mean"])
        for row in tables["scores.csv"]
        if row["measure"] == "dice" and row["model"] == "personal"
    }
    sight = [row for row in tables["paired.csv"] if row["reference"] == "no image"]
    assert {row["strategy"] for row in sight} == {"flames"}
    for row in sight:  # 2e-6: both are rounded
        assert float(row["mean"]) == pytest.approx(scores["flames", row["site"]] - 0.25, abs=2e-6)
    # It takes no part in the tests of strategies against each other.
    for name in ("overview.csv", "paired.csv", "scores.csv"):
        kept = [
            row for row in tables[name]
            if "no image" not in (row["strategy"], row.get("reference"))
        ]  # fmt: skip
        assert kept == before[name]


def test_a_mask_scored_on_other_cases_is_refused(runs, tmp_path):
    with pytest.raises(FlamesError, match="other cases") as error:
        write_comparison(tmp_path, runs, reference="flames", prior=prior_of(runs[0])[1:])
    assert "prior" in error.value.remedy


def test_a_case_scored_in_one_run_only_is_refused(runs, tmp_path):
    other = make_run(tmp_path / "other", strategy="fedavg")
    rows = other.load_cases()
    last = (rows[-1]["site"], rows[-1]["case_id"])
    save_csv(other.cases, [row for row in rows if (row["site"], row["case_id"]) != last])
    summary = other.load_summary()
    for score in summary["scores"]:
        score["cases"] -= score["site"] == last[0]
    save_json(other.summary, summary)
    with pytest.raises(FlamesError, match="other cases"):
        write_comparison(tmp_path / "out", [runs[0], other], reference="flames")


def test_an_unfinished_run_and_a_missing_reference_are_named(runs, tmp_path):
    with pytest.raises(FlamesError, match="not finished"):
        write_comparison(tmp_path, [runs[0], RunFolder(tmp_path / "none")], reference="flames")
    with pytest.raises(FlamesError, match="no run of the reference 'central'"):
        write_comparison(tmp_path, runs, reference="central")


@pytest.mark.parametrize("content", ['{"a":', "{}", "[]"])
def test_a_damaged_summary_is_named_with_what_helps(tmp_path, content):
    run = make_run(tmp_path / "run")
    run.summary.write_text(content, encoding="utf-8")
    with pytest.raises(FlamesError, match=str(run.path)) as error:
        write_comparison(tmp_path / "out", [run], reference="flames")
    assert "delete summary.json" in error.value.remedy
    assert "it trains again" in error.value.remedy
    run.state.mkdir()
    with pytest.raises(FlamesError) as error:
        write_comparison(tmp_path / "out", [run], reference="flames")
    assert "trains again" not in error.value.remedy


def test_a_run_without_its_cases_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    run.cases.unlink()
    with pytest.raises(FlamesError, match=r"has no cases\.csv"):
        write_comparison(tmp_path / "out", [run], reference="flames")


def cut(lines):
    return [*lines[:-3], lines[-3][: len(lines[-3]) // 2]]


DAMAGED = {
    "cases.csv": {
        "no column 'dice'": lambda lines: [lines[0].replace("dice", "DICE"), *lines[1:]],
        "is cut short": cut,
        "of the 22 cases of server:CT at ct-kidney": lambda lines: lines[:-12],
        "for presence_score": lambda lines: [
            lines[0],
            *(line.replace(",0.", ",O.") for line in lines[1:]),
        ],
    },
    "calibration.csv": {
        "no column 'model'": lambda lines: [lines[0].replace("model", "m"), *lines[1:]],
        "20 bins of server:CT at ct-kidney": lambda lines: lines[:-7],
        "20 bins of personal:ct-kidney": lambda lines: [
            line for line in lines if "personal:ct-kidney" not in line
        ],
        "nothing is in it": lambda lines: lines[:0],
    },
    "rounds.jsonl": {
        "the run has 5 rounds, and 0 are there": lambda lines: lines[:0],
        "the run has 5 rounds, and 3 are there": lambda lines: lines[: 3 * (6 + 3)],
    },
}


@pytest.mark.parametrize(
    ("name", "words"), [(name, words) for name, found in DAMAGED.items() for words in found]
)
def test_a_damaged_file_is_named_with_what_helps(tmp_path, name, words):
    run = make_run(tmp_path / "run")
    save_csv(run.calibration, [
        {"model": model, "site": site, "bin": n, "pixels": 9, "probability": 1.5, "tumour": 2}
        for model, site in dict.fromkeys((r["model"], r["site"]) for r in run.load_cases())
        for n in range(20)
    ])  # fmt: skip
    write_comparison(tmp_path / "whole", [run], reference="flames")
    path = run.path / name
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(DAMAGED[name][words](lines)), encoding="utf-8")
    with pytest.raises(FlamesError, match=re.escape(words)) as error:
        write_comparison(tmp_path / "out", [run], reference="flames")
    assert str(path) in error.value.found
    assert "delete summary.json" in error.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{}", '{"stores": ', None])
def test_a_damaged_environment_is_no_changed_store(runs, tmp_path, content):
    run = make_run(tmp_path / "run", strategy="fedavg")
    run.environment.unlink()
    if content is not None:
        run.environment.write_text(content, encoding="utf-8")
    with pytest.raises(FlamesError, match=str(run.environment)) as error:
        write_comparison(tmp_path / "out", [runs[0], run], reference="flames")
    assert "restore the file" in error.value.remedy


def test_runs_of_other_images_are_not_compared(runs, tmp_path):
    other = make_run(tmp_path / "other", strategy="fedavg")
    known = json.loads(other.environment.read_text(encoding="utf-8"))
    save_json(other.environment, known | {"stores": {"us-breast": "0" * 64}})
    with pytest.raises(FlamesError, match="a store changed between"):
        write_comparison(tmp_path / "out", [runs[0], other], reference="flames")


def test_runs_of_images_prepared_otherwise_are_not_compared(tmp_path):
    one, other = (make_run(tmp_path / name, strategy=name) for name in ("flames", "fedavg"))
    for run, digest in ((one, "a"), (other, "b")):
        write_comparison(tmp_path / "out", [one, other], reference="flames")
        known = json.loads(run.environment.read_text(encoding="utf-8"))
        save_json(run.environment, known | {"prepared": {"us-breast": digest}})
    with pytest.raises(FlamesError, match="us-breast was prepared otherwise between"):
        write_comparison(tmp_path / "out", [one, other], reference="flames")


def test_runs_of_another_split_are_not_compared(runs, tmp_path):
    one, other = (make_run(tmp_path / name, strategy=name) for name in ("flames", "fedavg"))
    sides = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    save_json(one.splits, {"us-breast": sides})
    save_json(other.splits, {"us-breast": sides | {"train": ["b", "a"]}})
    write_comparison(tmp_path / "out", [one, other], reference="flames")
    save_json(other.splits, {"us-breast": sides | {"train": ["a", "c"], "val": ["b"]}})
    with pytest.raises(FlamesError, match="us-breast was split anew between"):
        write_comparison(tmp_path / "out", [one, other], reference="flames")


def test_nothing_finished_is_said(tmp_path):
    with pytest.raises(FlamesError, match="no run is finished"):
        write_comparison(tmp_path, [], reference="flames")


def test_surface_dice_of_a_site_in_two_units_has_no_mean(tmp_path):
    mixed = make_run(tmp_path / "run", strategy="flames")
    rows = mixed.load_cases()
    site, case_id = rows[0]["site"], rows[0]["case_id"]
    units = ["px" if (r["site"], r["case_id"]) == (site, case_id) else "mm" for r in rows]
    save_csv(
        mixed.cases,
        [
            r | {"distance_unit": u, "nsd_tolerance": "2.0"}
            for r, u in zip(rows, units, strict=True)
        ],
    )
    write_comparison(tmp_path / "out", [mixed], reference="flames")
    found = load_csv(tmp_path / "out" / "tables" / "scores.csv")
    without = {r["site"] for r in found if r["measure"] == "nsd" and r["mean"] == ""}
    assert without == {site, MEAN}


def test_surface_dice_in_other_units_has_no_mean(runs, written, tmp_path):
    def mean(folder):
        rows = load_csv(folder / "tables" / "scores.csv")
        return {r["mean"] == "" for r in rows if (r["measure"], r["site"]) == ("nsd", MEAN)}

    rows = runs[0].load_cases()
    assert len({row["distance_unit"] for row in rows}) > 1
    assert mean(written.parent) == {True}
    run = make_run(tmp_path / "flames-7", strategy="flames")
    save_csv(run.cases, [row | {"distance_unit": "mm", "nsd_tolerance": "2.0"} for row in rows])
    write_comparison(tmp_path / "out", [run], reference="flames")
    assert mean(tmp_path / "out") == {False}


def test_the_mean_of_presence_is_over_sites_that_the_page_shows(tmp_path):
    run = make_run(tmp_path / "run")
    rows = [r for r in run.load_cases() if r["site"] != "ct-liver" or r["tumour_present"] == "1"]
    summary = run.load_summary()
    for score in summary["scores"]:
        score["cases"] = sum(
            (r["model"], r["site"]) == (score["model"], score["site"]) for r in rows
        )
    save_csv(run.cases, rows)
    save_json(run.summary, summary)
    cells = {
        row["site"]: row["cells"][0].split(" / ")
        for row in presence_table(load_comparison([run], reference="flames"))
    }
    assert [cells["ct-liver"][0], cells["ct-liver"][2]] == ["–", "–"]
    for place in range(3):
        shown = [float(c[place]) for s, c in cells.items() if s != MEAN and c[place] != "–"]
        assert float(cells[MEAN][place]) == pytest.approx(sum(shown) / len(shown), abs=0.011)
    assert cells["ct-liver"][1] != "–"


def test_a_difference_that_is_not_defined_is_a_dash(tmp_path):
    runs = [make_run(tmp_path / name, strategy=name) for name in ("flames", "local")]
    rows = runs[1].load_cases()
    for row in rows:
        if row["site"] == "us-breast":
            row |= {"dice": "", "nsd": "", "tumour_present": "0", "tumour_predicted": "0"}
    save_csv(runs[1].cases, rows)
    page = write_comparison(tmp_path / "out", runs, reference="flames").read_text(encoding="utf-8")
    cells = '<td>us-breast</td><td class="n">0</td><td class="n">{}</td>'
    assert cells.format("–") in page
    assert cells.format("") not in page


def test_without_training_alone_the_page_says_why_no_harm_is_shown(tmp_path):
    runs = [make_run(tmp_path / name, strategy=name) for name in ("flames", "modality")]
    page = write_comparison(tmp_path / "out", runs, reference="flames").read_text(encoding="utf-8")
    assert "local is not among these strategies, so harm is not known here." in page


def test_pictures_come_with_what_their_outlines_are(runs, written, tmp_path):
    said = "The label is outlined in green, the prediction in orange"
    assert said not in written.read_text(encoding="utf-8")
    run = make_run(tmp_path / "run")
    save_picture(run.pictures / "a.png")
    save_json(
        run.pictures / "index.json",
        [{"site": "us-breast", "case_id": "us-breast-007", "rank": "worst", "file": "a.png",
          "model": "personal:us-breast", "dice": 0.0}],
    )  # fmt: skip
    page = write_comparison(tmp_path / "out", [run, runs[3]], reference="flames")
    assert said in page.read_text(encoding="utf-8")


def test_nothing_of_a_table_is_cut_off_on_paper(written):
    page = written.read_text(encoding="utf-8")
    assert ".n, thead th { white-space: normal; }" in page[page.index("@media print") :]


def test_latex_is_balanced_and_escaped(written):
    for path in (written.parent / "tables").glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert text.count("{") == text.count("}")
        head = text.split(r"\toprule")[1].split(r"\midrule")[0]
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") for line in rows} == {head.count(" & ")}
    text = latex_table(["a", "b"], [["100 %", "x_1"], ["mean", "−0.1"]], caption="c & d",
                       last_apart=True)  # fmt: skip
    # In LaTeX's default encoding a bare < is printed as an upside-down exclamation mark.
    assert r"$<$ 0.001 & $>$ 1" in latex_table(["p", "n"], [["< 0.001", "> 1"]], caption="")
    assert r"100 \% & x\_1 \\" in text
    assert text.index(r"\midrule", text.index("x")) < text.index("mean")


def test_csv_can_be_read_back(written):
    with (written.parent / "tables" / "convergence.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["strategy"] for row in rows} == {"flames", "local", "modality"}
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


@pytest.mark.parametrize(
    ("strategies", "most", "told"),
    [
        (("flames", "fedavg"), 700, "US has 70% of the training cases"),
        (("flames", "fedavg"), 690, ""),
        (("flames", "fedavg", "uniform"), 700, ""),
        (("flames", "modality"), 700, ""),
    ],
)
def test_a_modality_that_outvotes_the_others_is_told(tmp_path, strategies, most, told):
    """One model weighted by cases is nearly that modality's, and says little of the others."""
    sites = {
        "a": ("US", "breast", 0.7, (most, 3, 4)),
        "b": ("MR", "brain", 0.7, (200, 3, 4)),
        "c": ("CT", "lung", 0.7, (800 - most, 3, 4)),
    }
    runs = [make_run(tmp_path / name, sites=sites, strategy=name) for name in strategies]
    page = write_comparison(tmp_path / "out", runs, reference="flames").read_text(encoding="utf-8")
    assert ("of the training cases" in page) is bool(told)
    assert told in page
