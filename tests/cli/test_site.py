from __future__ import annotations

import json

import pytest

from flames.config import dump_config
from flames.federation.network.guard import Guard
from flames.federation.network.kits import Kit
from flames.federation.network.outgoing import OutgoingLog
from flames.federation.network.policy import Policy
from flames.federation.network.processes import stopped
from flames.federation.network.settings import SiteSettings, save_site_settings


@pytest.fixture
def kit(tmp_path, site_stores) -> Kit:
    made = Kit(tmp_path / "us-a", "site", "us-a", "tests", "localhost:1")
    made.save()
    store = site_stores["us-a"].path
    save_site_settings(made, SiteSettings(store, Policy(approval=True)))
    return made


@pytest.fixture
def guard(kit, make_config) -> Guard:
    config = make_config("us-a")
    return Guard(
        Policy(approval=True),
        run="first",
        config=config,
        config_text=dump_config(config),
        folder=kit.state / "first",
    )


def test_a_run_is_shown_approved_and_denied(flames, kit, guard):
    waiting = guard.waits(None)
    _, out, _ = flames("site", "status", "--kit", kit.path)
    assert waiting.reason in out
    assert f"configuration {guard.digest[:12]}" in out
    code, out, _ = flames(
        "site", "approve", "first", "--kit", kit.path, "--config", guard.digest[:12]
    )
    assert (code, out) == (0, f"approved: first with configuration {guard.digest}\n")
    assert guard.waits(None) is None
    guard.check()
    code, out, _ = flames("site", "status", "--kit", kit.path, "--json")
    report = json.loads(out)
    assert report["policy"]["approval"] is True
    assert report["runs"][0]["decision"]["decision"] == "approved"
    code, _, _ = flames("site", "deny", "first", "--kit", kit.path, "--reason", "not now")
    assert code == 0
    with pytest.raises(Exception, match="denied the run: not now"):
        guard.check()


@pytest.mark.parametrize(
    ("counts", "missing"),
    [((4, 0, 3), "no validation case"), ((0, 0, 2), "no training case and no validation case")],
)
def test_a_site_does_not_start_with_a_store_that_it_could_not_train_on(
    flames, kit, write_store, tmp_path, counts, missing
):
    pytest.importorskip("nvflare", reason="needs the extra 'network'")
    before = kit.settings.read_bytes()
    store = write_store(tmp_path / "bare", site="us-a", counts=counts).path
    code, _, err = flames("site", "start", "--kit", kit.path, "--store", store)
    assert code == 2
    assert f"{store} has {missing}" in err
    assert "three patients or more" in err
    assert kit.settings.read_bytes() == before


def test_another_run_or_configuration_is_not_approved(flames, kit, guard):
    code, _, err = flames("site", "approve", "frist", "--kit", kit.path)
    assert code == 2
    assert "did you mean 'first'" in err
    for wrong in ("0" * 12, guard.digest[:4]):
        code, _, err = flames("site", "approve", "first", "--kit", kit.path, "--config", wrong)
        assert code == 2
        assert "decide again" in err
    assert guard.waits(None) is not None


def test_the_log_is_shown_and_checked(flames, kit):
    assert flames("site", "log", "--kit", kit.path, "--verify")[:2] == (0, "nothing has left yet\n")
    log = OutgoingLog(kit.outgoing)
    first = log.write("hello", b"abc", run="first", server_round=None, holds=["fingerprint"])
    log.write("update", b"abcd", run="second", server_round=1, holds=["weights"])
    code, out, _ = flames("site", "log", "--kit", kit.path, "--run", "first")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "fingerprint" in out
    code, out, _ = flames("site", "log", "--kit", kit.path, "--json")
    assert json.loads(out.splitlines()[0]) == first
    code, out, _ = flames("site", "log", "--kit", kit.path, "--verify", "--contains", first["hash"])
    assert code == 0
    assert out.startswith("whole: 2 entries\nlast hash ")
    kit.outgoing.write_text(kit.outgoing.read_text().replace('"bytes": 3', '"bytes": 2'))
    code, _, err = flames("site", "log", "--kit", kit.path, "--verify")
    assert code == 2
    assert "line 1: its content does not fit its hash" in err
    assert flames("site", "log", "--kit", kit.path, "--contains", "abc")[0] == 2


def test_a_site_does_not_start_with_a_bad_policy_or_a_broken_log(
    flames, kit, site_stores, tmp_path
):
    pytest.importorskip("nvflare", reason="needs the extra 'network'")
    start = ("site", "start", "--kit", kit.path, "--store", site_stores["us-a"].path)
    file = tmp_path / "policy.toml"
    file.write_text("aproval = true\n")
    code, _, err = flames(*start, "--policy", file)
    assert code == 2
    assert "did you mean 'approval'" in err
    kit.outgoing.write_text("{}\n")
    code, _, err = flames(*start)
    assert code == 2
    assert "is broken: line 1" in err


def test_what_no_run_needs_is_shown_and_then_deleted(flames, kit):
    job = kit.path / "00000000-0000-4000-8000-000000000001"
    job.mkdir()
    (job / "log.txt").write_text("x" * 1200)
    shown = "          1,200  00000000-0000-4000-8000-000000000001\n1,200 bytes"
    code, out, _ = flames("site", "prune", "--kit", kit.path, "--days", 0, "--dry-run")
    assert (code, out, job.exists()) == (0, f"{shown} would be deleted\n", True)
    code, out, _ = flames("site", "prune", "--kit", kit.path)
    assert (code, out, job.exists()) == (0, "0 bytes deleted\n", True)
    code, out, _ = flames("site", "prune", "--kit", kit.path, "--days", 0)
    assert (code, out, job.exists()) == (0, f"{shown} deleted\n", False)


def test_the_log_is_moved_only_while_the_site_is_stopped(flames, kit, tmp_path):
    entry = OutgoingLog(kit.outgoing).write("ask", b"", run="first", server_round=1, holds=[])
    dest = tmp_path / "old.jsonl"
    with stopped(kit):
        code, _, err = flames("site", "log", "--kit", kit.path, "--archive", dest)
    assert (code, dest.exists()) == (2, False)
    assert "is running already" in err
    code, out, _ = flames("site", "log", "--kit", kit.path, "--archive", dest)
    assert (code, out.startswith("moved: ")) == (0, True)
    assert entry["hash"] in dest.read_text()
    code, out, _ = flames("site", "log", "--kit", kit.path, "--verify")
    assert (code, out.startswith("whole: 1 entries")) == (0, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run", "first"], "--archive is of the whole log, and --run would"),
        (["--verify"], "and --verify would"),
        (["--verify", "--contains", "0" * 12], "and --verify and --contains would"),
        (["--json", "--all"], "and --all and --json would"),
    ],
)
def test_the_log_is_not_moved_where_another_option_would_be_ignored(
    flames, kit, tmp_path, options, words
):
    OutgoingLog(kit.outgoing).write("ask", b"", run="first", server_round=1, holds=[])
    dest = tmp_path / "old.jsonl"
    code, _, err = flames("site", "log", "--kit", kit.path, "--archive", dest, *options)
    assert (code, words in err, dest.exists()) == (2, True, False), err


@pytest.mark.parametrize("options", [["--run", "first"], ["--json"]])
def test_the_log_is_checked_whole_or_not_at_all(flames, kit, options):
    OutgoingLog(kit.outgoing).write("ask", b"", run="first", server_round=1, holds=[])
    code, _, err = flames("site", "log", "--kit", kit.path, "--verify", *options)
    assert (code, f"{options[0]} would do nothing" in err) == (2, True), err
