from io import StringIO

from rich.console import Console

from flames.reports import print_summary
from flames.reports.terminal import print_scores


def printed(run) -> str:
    console = Console(file=StringIO(), width=80)
    print_summary(run, console)
    return console.file.getvalue()


def test_a_line_a_site_fits_eighty_columns(run):
    scores = {(s["site"], s["model_kind"]): s["dice"] for s in run.load_summary()["scores"]}
    lines = printed(run).splitlines()
    for site in run.load_summary()["sites"]:
        line = next(line for line in lines if f" {site} " in line)
        for kind in ("personal", "server"):
            dice = scores[site, kind]
            assert f"{dice['mean']:.3f} [{dice['low']:.3f}, {dice['high']:.3f}]" in line


def test_names_are_not_read_as_styles(tmp_path, make):
    run = make(tmp_path, sites={"[red]x": ("CT", "[b]liver", 0.7, (9, 3, 10))})
    assert "[red]x" in printed(run)
    assert "[b]liver" in printed(run)


def test_an_unfinished_run_says_so(run):
    run.summary.unlink()
    assert "not finished" in printed(run)


def test_scores_fit_a_terminal_of_eighty_columns():
    score = {
        "model": "server:MR",
        "site": "mr-brain-cs",
        "cases": 137,
        "dice": {"mean": 0.048, "low": 0.015, "high": 0.087, "n": 5},
        "presence": {"auc": 0.71, "sensitivity": 1.0, "specificity": 0.5},
        "missed": 12,
    }
    console = Console(file=StringIO(), width=80)
    print_scores({"scores": [score]}, console)
    lines = console.file.getvalue().splitlines()
    assert lines[2].endswith("Missed")
    assert " ".join(lines[4].split()) == (
        "server:MR mr-brain-cs 137 0.048 [0.015, 0.087] 0.71 1.00 0.50 12"
    )
