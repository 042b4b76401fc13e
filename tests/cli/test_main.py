from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flames.cli import main
from flames.config import load_config

SMALL = {
    "rounds": "1",
    "training.local-steps": "1",
    "training.batch-size": "2",
    "training.validation-images": "4",
    "data.image-size": "32",
    "evaluation.resamples": "100",
    "threads": "1",
}


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    import flames.models  # noqa: F401

    monkeypatch.setattr(sys.modules["flames.models.unet"], "FILTERS", (4, 8, 16))


@pytest.fixture
def federation(site_stores, tmp_path) -> Path:
    path = tmp_path / "federation.toml"
    sites = "".join(
        f'[[sites]]\nname = "{name}"\nstore = "{store.path}"\n'
        for name, store in site_stores.items()
    )
    path.write_text(f'name = "tiny"\n{sites}', encoding="utf-8")
    return path


def small() -> list[str]:
    return [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


def test_help_loads_no_torch_and_no_numpy():
    code = (
        "import sys\n"
        "from flames.cli.main import main\n"
        "sys.argv = ['flames', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'monai', 'scipy', 'pydantic', 'matplotlib'}\n"
        "print('loaded', sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded []"
    for command in ("run", "evaluate", "report", "data", "compare"):
        assert command in result.stdout


@pytest.mark.parametrize("group", [(), ("data",), ("consortium",), ("server",), ("site",)])
def test_a_list_of_commands_cuts_no_sentence(flames, monkeypatch, group):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = flames(*group, "--help")
    assert code == 0
    commands = out.split("Commands:\n")[1].splitlines()
    assert commands
    assert [line for line in commands if not line.endswith(".") or line.endswith("..")] == []


def test_the_list_of_commands_begins_with_what_comes_first_and_has_all(flames):
    from flames.cli.main import ORDER, app

    _, out, _ = flames("--help")
    listed = [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()]
    assert listed[:2] == ["data", "run"]
    groups = {group.name for group in app.registered_groups}
    assert (
        set(listed) == set(ORDER) == groups | {c.callback.__name__ for c in app.registered_commands}
    )


def test_help_shows_no_placeholder_as_a_default(flames):
    assert "-1" not in flames("run", "--help")[1]


def test_version(flames):
    from flames import __version__

    assert flames("--version")[:2] == (0, f"flames {__version__}\n")


def test_an_unknown_key_ends_with_2_and_a_hint(flames, federation, tmp_path):
    code, _, err = flames("run", federation, "--out", tmp_path / "r", "--set", "training.stps=3")
    assert code == 2
    assert "unknown key 'training.stps'" in err
    assert "what to do:" in err
    assert "Traceback" not in err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "rounds"], "'rounds' is not KEY=VALUE"),
        (["--set", "rounds=0"], "greater than or equal to 1"),
        (["--strategy", "fedagv"], "'fedavg'"),
    ],
)
def test_a_bad_option_ends_with_2(flames, federation, tmp_path, arguments, words):
    code, _, err = flames("run", federation, "--out", tmp_path / "r", *arguments)
    assert code == 2
    assert words in err


def test_a_run_from_images_to_report(flames, tmp_path):
    code, out, _ = flames("data", "make", tmp_path / "data", "--cases", 12, "--seed", 3)
    assert code == 0
    assert len(out.splitlines()) == 6
    whole = load_config(tmp_path / "data" / "federation.toml")
    assert [site.store.name for site in whole.sites] == [
        line.split()[0] for line in out.splitlines()
    ]
    assert whole.seed == 3

    two = tmp_path / "data" / "two.toml"
    two.write_text(
        "".join(f'[[sites]]\nname = "{s}"\nstore = "{s}"\n' for s in ("us-breast", "us-ovary")),
        encoding="utf-8",
    )
    run = tmp_path / "run"
    code, out, err = flames("run", two, "--out", run, "--seed", 4, "-s", "modality", *small())
    assert (code, err) == (0, "")
    assert "us-breast" in out
    config = load_config(run / "config.toml")
    assert (config.seed, config.strategy.name, config.training.local_steps) == (4, "modality", 1)
    report = run / "report.html"
    assert str(report) in out
    text = report.read_text(encoding="utf-8")
    assert "us-ovary" in text

    report.unlink()
    code, out, _ = flames("report", run)
    assert (code, out.strip()) == (0, str(report))
    assert report.read_text(encoding="utf-8") == text

    store = tmp_path / "data" / "us-ovary"
    code, out, _ = flames(
        "evaluate", run, "--site", store, "--out", tmp_path / "scores", "--split", "val", "--json"
    )
    assert code == 0
    summary = json.loads(out)
    assert summary["scores"]
    with (tmp_path / "scores" / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert {row["site"] for row in csv.DictReader(file)} == {"us-ovary"}

    shifted = tmp_path / "shifted"
    table = ["evaluate", run, "--site", store, "--out", shifted, "--shifts"]
    code, out, _ = flames(*table, "--json")
    assert code == 0
    told = {row["shift"]: row for row in json.loads(out)["shifts"]}
    assert told["none"]["change"] is None
    assert told["blur mild"]["change"]["mean"] is not None
    code, out, _ = flames(*table)
    lines = [line.split() for line in out.splitlines()]
    for shift, row in told.items():
        (line,) = [line for line in lines if line[:-2] == shift.split()]
        assert line[-2] == f"{row['dice']['mean']:.3f}"

    wrong = tmp_path / "data" / "mr-brain"
    code, _, err = flames(
        "evaluate", run, "--site", wrong, "--out", tmp_path / "w", "--model", "server:US"
    )
    assert code == 2
    assert "trained on US" in err
    assert "Traceback" not in err

    code, _, err = flames("run", two, "--out", run, *small())
    assert code == 2
    assert "already holds a run" in err
    assert "--resume" in err


def test_a_run_that_goes_on_with_other_options_says_what_to_give(flames, federation, tmp_path):
    out = tmp_path / "run"
    flames("run", federation, "--out", out, "-s", "local", "-q", *small())
    code, _, err = flames("run", federation, "--out", out, "--resume", *small())
    assert code == 2
    assert "was started with another strategy.name" in err
    assert "the options that it began with" in err


def test_a_table_that_stands_twice_in_a_file_is_told(flames, tmp_path):
    for text in ("[data]\nimage-size = 64\n[data]\ndimensions = 3\n", "rounds = 1\nrounds = 2\n"):
        file = tmp_path / "twice.toml"
        file.write_text(text, encoding="utf-8")
        code, _, err = flames("run", file, "--out", tmp_path / "run")
        assert code == 2
        assert "put both into one" in err


def test_quiet_prints_the_closing_table_only(flames, federation, tmp_path):
    loud = flames("run", federation, "--out", tmp_path / "a", "-s", "local", *small())
    quiet = flames("run", federation, "--out", tmp_path / "b", "-s", "local", "-q", *small())
    assert loud[0] == quiet[0] == 0
    assert "round 1/1" in loud[1]
    assert "round 1/1" not in quiet[1]
    assert "us-a" in quiet[1]


def test_pictures_of_everyone_only_when_asked(flames, write_store, tmp_path):
    write_store(tmp_path / "x", site="x", made_up=False)
    file = tmp_path / "f.toml"
    file.write_text('[[sites]]\nname = "x"\nstore = "x"\n', encoding="utf-8")
    flames("run", file, "--out", tmp_path / "a", "-q", *small())
    flames("run", file, "--out", tmp_path / "b", "-q", "--pictures", *small())
    assert not (tmp_path / "a" / "pictures").exists()
    assert list((tmp_path / "b" / "pictures").glob("*.png"))


def test_a_full_disk_is_told_in_two_lines(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/first/x")

    monkeypatch.setattr(main, "app", full)
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: cannot write runs/first/x: No space left on device\n"
        "  what to do: free some space, then give the same command again\n"
    )


def test_another_trouble_of_the_system_is_not_hidden(monkeypatch):
    def broken():
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(OSError, match="Input/output"):
        main.main()


def test_a_report_of_no_run_ends_with_2(flames, tmp_path):
    code, _, err = flames("report", tmp_path)
    assert code == 2
    assert "summary.json" in err


def test_a_comparison_from_one_command_that_grows(flames, federation, tmp_path):
    out = tmp_path / "table"
    table = ["compare", federation, "--out", out, "--reference", "local", *small()]
    code, text, err = flames(*table, "--strategies", "local,modality", "--seeds", 1)
    assert (code, err) == (0, "")
    assert "2 of 2 runs are to do, 1 at a time" in text
    assert "2 of 2 runs are finished" in text
    report = out / "report.html"
    assert str(report) in text.replace("\n", "")
    names = {"local-0", "modality-0", "prior", "report.html", "tables"}
    assert {p.name for p in out.iterdir()} == names
    assert "A mask that does not look at the image has " in text
    (out / "local-0" / "report.html").write_text("of the scores before", encoding="utf-8")
    (out / "local-0" / "summary.json").unlink()  # as what helps with damaged scores says
    code, text, _ = flames(*table, "--strategies", "local,modality,fedavg", "--seeds", 1)
    assert code == 0
    assert text.count("runs are finished") == 2
    assert "before" not in (out / "local-0" / "report.html").read_text(encoding="utf-8")[:50]
    assert "fedavg" in (out / "tables" / "overview.csv").read_text(encoding="utf-8")

    code, _, err = flames(*table, "--strategies", "fedavg", "--seeds", 1)
    assert code == 2
    assert "the reference 'local' is not compared" in err
    columns = (out / "tables" / "scores-personal.tex").read_text(encoding="utf-8")
    code, text, _ = flames(*table, "--strategies", "local,modality,paper", "--report-only")
    assert code == 0
    assert "no image" in columns
    again = (out / "tables" / "scores-personal.tex").read_text(encoding="utf-8")
    assert "no image" in again
    assert not (out / "paper-0").exists()


def test_plans_for_three_dimensions_come_from_stores_or_their_fingerprints(
    flames, write_store, tmp_path
):
    stores = [
        write_store(
            tmp_path / name, site=name, modality="MR", shape=(20, 26, 4), slice_axis=2, seed=seed
        )
        for seed, name in enumerate("ab")
    ]
    code, _, err = flames("data", "fingerprint", stores[0].path, "-o", tmp_path / "a.json")
    assert code == 0, err
    code, printed, _ = flames("data", "fingerprint", stores[0].path)
    assert printed == (tmp_path / "a.json").read_text(encoding="utf-8")
    code, told, err = flames("plan", tmp_path / "a.json", stores[1].path)
    assert code == 0, err
    code, _, _ = flames("plan", *(s.path for s in stores), "--out", tmp_path / "plans.toml")
    assert (tmp_path / "plans.toml").read_text(encoding="utf-8") == told
    sites = "".join(f'[[sites]]\nname = "{s.site}"\nstore = "{s.path}"\n' for s in stores)
    (tmp_path / "f.toml").write_text(told + sites, encoding="utf-8")
    config = load_config(tmp_path / "f.toml")
    assert config.data.dimensions == 3
    assert config.plans["MR"].spacing == (2.0, 1.25, 1.25)
    code, _, err = flames("plan", stores[0].path, "--out", tmp_path / "plans.toml")
    assert (code, "is there already" in err) == (2, True)


def test_three_dimensions_need_their_network(flames, federation, tmp_path):
    code, _, err = flames(
        "run", federation, "--set", "data.dimensions=3", "--set", "model.name=student",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 2
    assert "need the network 'unet'" in err


def test_a_model_of_volumes_is_exported_from_its_run(flames, write_store, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["flames.models.unet3d"], "FILTERS", (4, 8, 16))
    store = write_store(
        tmp_path / "a", site="a", modality="MR", shape=(20, 26, 4), slice_axis=2, seed=1
    )
    file = tmp_path / "f.toml"
    file.write_text('[[sites]]\nname = "a"\nstore = "a"\n', encoding="utf-8")
    run = tmp_path / "run"
    volumes = ["--set", "data.dimensions=3"]
    code, _, err = flames("run", file, "--out", run, "-q", *small(), *volumes)
    assert (code, err) == (0, "")
    code, told, err = flames(
        "export", run, "--to", "torchscript", "-o", tmp_path / "out", "--images", store.path
    )
    assert (code, err) == (0, "")
    assert "checked on 3 volumes; probabilities differ by at most" in told
    assert "voxels decided otherwise" in told
    card = (tmp_path / "out" / "model-card.md").read_text(encoding="utf-8")
    assert "| spacing | 2 x 1.25 x 1.25 mm" in card
    assert "| a (MR organ) | 3 |" in card


def test_a_study_of_one_part_left_out_from_one_command(flames, federation, tmp_path):
    study = ["generalise", federation, "--out", tmp_path / "study", "-s", "modality", *small()]
    code, told, err = flames(*study, "-q", "--leave-out", "US-us-a")
    assert (code, err) == (0, "")
    plan = json.loads((tmp_path / "study" / "plan.json").read_text(encoding="utf-8"))
    assert [part["name"] for part in plan["left_out"]] == ["US-us-a"]
    report = tmp_path / "study" / "report.html"
    assert str(report) in told
    assert "us-a" in report.read_text(encoding="utf-8")


def test_what_cannot_be_left_out_ends_with_2_and_the_names_that_can(flames, federation, tmp_path):
    code, _, err = flames(
        "generalise", federation, "--out", tmp_path / "study", "--leave-out", "MR-brain"
    )
    assert code == 2
    assert "nothing that can be left out is named 'MR-brain'" in err
    assert "US-us-a" in err
    assert "US-us-b" in err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("options", "how"), [([], "again with --resume to go on"), (["--resume"], "again to go on")]
)
def test_a_run_that_is_stopped_says_how_it_goes_on(
    flames, federation, tmp_path, monkeypatch, options, how
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("flames.federation.simulation.simulate", interrupted)
    code, _, err = flames("run", federation, "--out", tmp_path / "run", *options)
    assert code == 130
    assert err == f"stopped; give the command {how}\n"
