import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from flames.errors import FlamesError
from flames.files import save_json, save_text
from flames.reports import write_report
from flames.reports.differences import mean_difference
from flames.reports.records import load_records
from flames.reports.tables import site_rows, time_shares
from flames.runs import RunFolder, save_csv, save_lines

VOID = {"meta", "br", "img", "line", "circle", "rect", "polyline", "path"}


class Page(HTMLParser):
    """Check that tags nest; keep what a browser would load, and the text of table rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "tr" in self.open and data.strip():
            self.rows[-1] += f"|{data.strip()}"


def read(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_every_score_of_a_site_stands_in_its_row(run):
    score = run.load_summary()["scores"][0]
    row = next(row for row in Page(read(run)).rows if "us-breast" in row and "Personal" in row)
    dice = score["dice"]
    assert f"|{dice['mean']:.3f}|[{dice['low']:.3f}, {dice['high']:.3f}]" in row
    assert "|380 / 60 / 40" in row
    assert f"|{score['hd95']['mean']:.1f}|px" in row
    assert f"|{score['nsd']['mean']:.3f}" in row
    assert "|0.93|" in row
    assert f"|{score['missed']} / 32|{score['false_alarm']} / 8" in row
    assert "ended with a mixture, α\u00a0=\u00a00.66" in row


def test_a_mean_over_millimetres_and_pixels_says_why_it_is_none(run):
    summary = run.load_summary()
    means = [m for m in summary["means"] if m["group"] == "all sites"]
    assert means
    for mean in means:
        mean |= {key: {"mean": None, "low": None, "high": None, "n": 0} for key in ("hd95", "nsd")}
    save_json(run.summary, summary)
    rows = Page(read(run)).rows
    assert sum(row.count("mixed units") for row in rows) == 2 * len(means)


def test_a_site_that_kept_an_earlier_round_did_not_end_with_its_last_choice(run):
    summary = run.load_summary()
    summary["sites"]["us-breast"]["kept_round"] = 3
    summary["sites"]["us-ovary"]["kept_round"] = 6  # the closing pass of five rounds
    save_json(run.summary, summary)
    rows = [row for row in Page(read(run)).rows if "Personalised" in row and "ended with" in row]
    assert "ended with its weights of round 3" in next(r for r in rows if "us-breast" in r)
    assert "ended with a mixture" in next(r for r in rows if "us-ovary" in r)
    summary["sites"]["us-breast"]["kept_round"] = 0
    save_json(run.summary, summary)
    assert "ended with its model of an earlier run" in read(run)
    for score in summary["scores"]:  # one model for all: what a client would keep is not used
        score["dice"] = {"mean": 0.5}
    save_json(run.summary, summary)
    assert "its weights of round" not in read(run)
    assert "earlier run" not in read(run)


def test_parts_of_the_time_add_up_to_the_whole(run):
    times = time_shares(load_records(run))  # 937.5 s of training, 7.5 of them waiting for data
    percents = {part["kind"]: float(part["percent"]) for part in times["parts"]}
    assert percents["train"] == pytest.approx(100 * 930 / 1092.5, abs=0.051)
    assert sum(percents.values()) == pytest.approx(100, abs=0.2)
    text = re.sub(r"<[^>]+>", "", read(run))
    assert "of which waiting for data 7.5 s" in text
    assert "18 min 20 s in all, summed over sites." in text


def test_the_server_model_beside_a_site_is_that_of_its_modality(run):
    summary = run.load_summary()
    us = next(s for s in summary["scores"] if s["model"] == "server:US")
    summary["scores"].insert(0, {**us, "model": "server:all", "dice": {"mean": 0.111}})
    save_json(run.summary, summary)
    rows = [row for row in Page(read(run)).rows if row.startswith("|Server|")]
    assert any(f"|{us['dice']['mean']:.3f}|" in row for row in rows)
    assert not any("0.111" in row for row in rows)
    summary["scores"] = [s for s in summary["scores"] if s["model"] != "server:US"]
    save_json(run.summary, summary)
    assert any("0.111" in row for row in Page(read(run)).rows if row.startswith("|Server|"))


def test_the_difference_is_paired_by_case(run):
    rows = [row for row in run.load_cases() if row["site"] == "ct-liver" and row["dice"]]
    dice = {(row["model_kind"], row["case_id"]): float(row["dice"]) for row in rows}
    ids = {i for k, i in dice if k == "personal"} & {i for k, i in dice if k == "server"}
    mean = sum(dice["personal", i] - dice["server", i] for i in ids) / len(ids)
    row = next(row for row in Page(read(run)).rows if f"{mean:+.3f} [".replace("-", "−") in row)
    assert row.endswith(f"over the {len(ids)} cases with a Dice from either")


def test_a_difference_counts_the_cases_that_either_model_defines(run):
    rows = run.load_cases()
    mine = [r for r in rows if r["model"] == "personal:ct-liver"]
    next(r for r in mine if r["case_id"].endswith("-005"))["dice"] = ""  # silent, no false alarm
    save_csv(run.cases, rows)
    either = {r["case_id"] for r in rows if r["site"] == "ct-liver" and r["dice"]}
    row = next(row for row in site_rows(load_records(run)) if row["site"] == "ct-liver")
    assert row["pairs"] == str(len(either)) == str(sum(bool(r["dice"]) for r in mine) + 1)
    assert f"over the {len(either)} cases with a Dice from either" in read(run)


def test_differences_are_tossed_as_often_as_the_configuration_says(run):
    few = mean_difference(load_records(run))
    save_text(run.config, run.config.read_text("utf-8") + "[evaluation]\nresamples = 20\n")
    assert mean_difference(load_records(run))["p_value"] >= 1 / 21 > few["p_value"]


def test_a_kind_of_model_that_does_not_exist_has_no_rows(run):
    summary = run.load_summary()
    summary["scores"] = [s for s in summary["scores"] if s["model_kind"] == "personal"]
    save_json(run.summary, summary)
    rows = Page(read(run)).rows
    assert any("|Personalised|" in row for row in rows)
    assert not any(row.startswith(("|Server|–", "|Difference")) for row in rows)


def test_the_head_says_what_was_run(run):
    text = read(run)
    head = re.sub(r"<[^>]+>", "", text[: text.index("<main>")])
    for fact in ("demonstration", "flames", "unet (2\u202f012\u202f345 parameters)", "2026-03-14"):
        assert fact in head
    assert "6 sites of CT, MR and US" in head
    assert "1\u202f256 training cases" in head
    assert "drawn by FLAMES, no patients" in head


@pytest.mark.parametrize("strategy", ["paper", "modality", "fedavg", "local", "central", "new"])
def test_every_strategy_has_a_sentence(tmp_path, make, strategy):
    from flames.reports.words import strategy_sentence

    assert strategy_sentence(strategy) in read(make(tmp_path, strategy=strategy)).replace(
        "&#39;", "'"
    )


def test_a_run_that_did_not_finish_says_that_its_data_are_made_up(run):
    run.summary.unlink()
    known = json.loads(run.environment.read_text(encoding="utf-8"))
    save_json(run.environment, known | {"made_up": True})
    assert "drawn by FLAMES, no patients" in read(run)
    save_json(run.environment, known | {"made_up": False})
    assert "drawn by FLAMES, no patients" not in read(run)


def test_real_data_are_not_called_made_up(run):
    save_json(run.summary, run.load_summary() | {"made_up": False})
    assert "drawn by FLAMES" not in read(run)


def test_a_site_without_a_dice_does_not_count_as_one_of_the_mean(run):
    assert "mean over 6 sites" in read(run)
    summary = run.load_summary()
    none = {"mean": None, "low": None, "high": None, "n": 0}
    for score in summary["scores"]:
        if score["site"] == "us-breast":
            score["dice"] = none
    save_json(run.summary, summary)
    text = read(run)
    assert "mean over 5 sites" in text
    assert "mean over 6 sites" not in text
    counts = [row.strip("|").split("|")[:3] for row in Page(text).rows]
    assert ["Personalised", "all sites", "5"] in counts
    assert ["Personalised", "US", "1"] in counts
    assert ["Personalised", "MR", "2"] in counts


def test_tiles_hold_the_means_the_pooled_presence_and_the_worst_site(run):
    summary = run.load_summary()
    personal = [s for s in summary["scores"] if s["model_kind"] == "personal"]
    found = sum(
        round(s["presence"]["sensitivity"] * s["presence"]["with_tumour"]) for s in personal
    )
    total = sum(s["presence"]["with_tumour"] for s in personal)
    worst = min(personal, key=lambda s: s["dice"]["mean"])
    text = read(run)
    assert f'<span class="value">{summary["means"][0]["dice"]["mean"]:.3f}</span>' in text
    assert f"{found} of {total} scans with a tumour" in text
    assert f"{worst['site']}: Dice {worst['dice']['mean']:.3f}" in text


def test_the_page_loads_nothing_and_runs_nothing(run):
    page = Page(read(run))
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"} == set()
    loads = [attrs.get(key) for _, attrs in page.tags for key in ("src", "href", "srcset", "data")]
    assert all(load.startswith("data:") for load in loads if load)
    style = re.search(r"<style>(.*?)</style>", read(run), re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert not any("on" + event in attrs for _, attrs in page.tags for event in ("load", "error"))


def test_names_are_text_never_markup(tmp_path, make, picture):
    site = "<script>alert(1)</script>"
    run = make(
        tmp_path, sites={site: ('"><b>', "<i>x", 0.7, (9, 3, 10)), "b": ("CT", "a", 0.6, (9, 3, 9))}
    )
    picture(run.pictures / "x.png")
    entry = {"site": site, "case_id": "<u>", "model": "m", "dice": None, "rank": "best"}
    save_json(run.pictures / "index.json", [entry | {"file": "x.png"}])
    text = read(run)
    Page(text)
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"<(script|b>b|i>x|u>)", text)
    assert "https://example.org/&lt;notes&gt;" in text


def test_the_same_folder_gives_the_same_bytes(tmp_path, make):
    first = write_report(make(tmp_path / "a" / "run")).read_bytes()
    again = write_report(RunFolder(tmp_path / "a" / "run")).read_bytes()
    assert first == again == write_report(make(tmp_path / "b" / "run")).read_bytes()


def test_tables_and_drawings_are_accessible(run):
    page = Page(read(run))
    assert ("html", {"lang": "en"}) in page.tags
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    drawings = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all("aria-hidden" in a or (a["role"] == "img" and a["aria-label"]) for a in drawings)
    assert sum(attrs.get("class") == "chart" for attrs in drawings) == 9


def test_what_a_table_says_of_itself_is_read_on_a_phone_without_scrolling(run):
    text = read(run)
    phone = text[text.index("@media (max-width: 620px)") : text.index("@media print")]
    assert "caption { max-width: 84vw; }" in phone


def test_an_unfinished_run_shows_its_curves(run):
    for path in (run.summary, run.cases, run.config, run.environment):
        path.unlink()
    text = read(run)
    Page(text)
    assert "This run is not finished" in text
    assert "us-breast ends at" in text
    assert 'class="tiles"' not in text


def test_the_closing_pass_is_no_round_more(run):
    assert "closing pass" not in read(run)[: read(run).index('id="costs"')]
    last = [r | {"round": 6, "loss": None} for r in run.load_rounds() if r["round"] == 5]
    save_lines(run.rounds, [*run.load_rounds(), *last])
    text = read(run)
    assert "The points at 6 are the closing pass, which trains nothing." in text
    assert "<dt>Rounds</dt><dd>5</dd>" in text


def test_no_round_yet_is_calm(run):
    for path in (run.summary, run.cases, run.rounds):
        path.unlink()
    assert "No round is recorded." in read(run)


def test_undefined_scores_are_dashes(run):
    summary = run.load_summary()
    empty = {"mean": None, "low": None, "high": None, "n": 0}
    for score in summary["scores"]:
        score |= dict.fromkeys(("dice", "iou", "hd95", "nsd", "volume_error"), empty)
        score["presence"] = {"auc": None, "sensitivity": None, "specificity": None}
    summary["means"] = []
    summary["sites"]["us-breast"] |= {"chosen": None, "alpha": None, "organ": None}
    save_json(run.summary, summary)
    text = read(run)
    Page(text)
    row = next(row for row in Page(text).rows if "us-breast" in row and "Personal" in row)
    assert row.split("Personalised")[1].startswith("|–|–|–|–|–|–")
    assert "None" not in text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_a_summary_with_the_least_is_enough(tmp_path):
    run = RunFolder(tmp_path)
    save_json(run.summary, {"sites": {"a": {"modality": "CT"}}, "scores": [{"model": "server:CT"}]})
    Page(read(run))


def test_pictures_are_embedded_by_site_best_first(run, picture):
    entries = []
    for rank, dice in (("worst", 0.125), ("best", 0.875)):
        picture(run.pictures / f"{rank}.png")
        entries.append(
            {"site": "us-ovary", "case_id": f"c-{rank}", "model": "personal:us-ovary"}
            | {"dice": dice, "rank": rank, "file": f"{rank}.png"}
        )
    entries.append(entries[0] | {"file": "gone.png"})
    save_json(run.pictures / "index.json", entries)
    text = read(run)
    assert text.count("data:image/png;base64,") == 2
    assert text.index("Best case</b>, c-best") < text.index("Worst case</b>, c-worst")
    assert "Dice 0.875, personalised model" in text
    assert "pictures = true" not in text


def test_without_pictures_the_report_says_how_to_allow_them(run):
    text = read(run)
    assert "<code>pictures = true</code>" in text
    assert "<code>--pictures</code>" in text


def test_a_picture_outside_its_folder_is_refused(run, picture):
    picture(run.path / "secret.png")
    entry = {"site": "a", "case_id": "c", "model": "m", "dice": 0.5, "rank": "best"}
    save_json(run.pictures / "index.json", [entry | {"file": "../secret.png"}])
    with pytest.raises(FlamesError, match="outside"):
        write_report(run)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FlamesError, match="not a run folder"):
        write_report(RunFolder(tmp_path))
    with pytest.raises(FlamesError, match="not a run folder"):
        write_report(RunFolder(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["summary", "config", "environment"])
def test_a_broken_record_is_named(run, name):
    save_text(getattr(run, name), "{ no")
    with pytest.raises(FlamesError, match="cannot be read"):
        write_report(run)


def test_a_newer_schema_is_refused(run):
    save_json(run.summary, run.load_summary() | {"schema_version": 99})
    with pytest.raises(FlamesError, match="schema 99"):
        write_report(run)


def test_no_torch_is_loaded_and_the_command_prints_the_path(run):
    code = (
        "import sys, json; from pathlib import Path; from flames.cli.report import report;"
        "early = [m for m in ('jinja2', 'torch') if m in sys.modules];"
        f"report(Path({str(run.path)!r}));"
        "late = [m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules];"
        "print(json.dumps([early, late]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path, loaded = out.stdout.splitlines()
    assert path == str(run.report)
    assert json.loads(loaded) == [[], []]


def test_the_report_needs_only_the_records(run, tmp_path):
    moved = tmp_path / "elsewhere" / "run"
    moved.mkdir(parents=True)
    for path in (run.config, run.environment, run.rounds, run.cases, run.summary):
        shutil.copy(path, moved)
    assert read(RunFolder(moved)) == read(run)
