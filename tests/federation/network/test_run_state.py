"""What a run at the server begins with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flames.config import dump_config
from flames.errors import FlamesError
from flames.federation.earlier import KEPT, earlier_digests
from flames.federation.network.run_state import RunState
from flames.files import save_json


@pytest.fixture
def earlier(finished, tmp_path):
    """Return the folder of a finished run at the server, which ``lead`` started."""
    folder = Path(shutil.copytree(finished.path, tmp_path / "runs" / "first-run"))
    save_json(folder / "state" / "run.json", {"by": "lead", "status": "finished"})
    return folder


@pytest.fixture
def begin(make_config, tmp_path):
    """Return a function that claims a run which begins with another."""

    def claim(start, **changed):
        text = dump_config(make_config(start=Path(start), **changed))
        return RunState.claim(tmp_path / "runs" / "second", text, everybody=True)

    return claim


def kept(state):
    return sorted(path.name for path in (state.run.state / KEPT).glob("*"))


def test_the_models_are_brought_once_and_then_the_other_run_may_go(earlier, begin):
    state = begin("first-run")
    state.bring_earlier("lead")
    assert kept(state) == ["MR.safetensors", "US.safetensors"]
    environment = json.loads(state.run.environment.read_text(encoding="utf-8"))
    assert environment["start"] == earlier_digests(earlier)
    shutil.rmtree(earlier)
    state.bring_earlier("lead")
    assert len(kept(state)) == 2


def test_a_run_of_somebody_else_is_not_begun_with(earlier, begin):
    state = begin("first-run")
    with pytest.raises(FlamesError, match="the run first-run is lead's, and other would begin"):
        state.bring_earlier("other")
    assert kept(state) == []


@pytest.mark.parametrize("start", ["unknown", "..", "/", "first-run/state"])
def test_only_runs_of_the_server_are_begun_with(earlier, begin, start):
    state = begin(start)
    with pytest.raises(FlamesError, match="the server has no run"):
        state.bring_earlier("lead")
    assert kept(state) == []


def test_a_path_is_the_name_of_a_run_here(earlier, begin, tmp_path):
    elsewhere = shutil.copytree(earlier, tmp_path / "elsewhere" / "unknown")
    with pytest.raises(FlamesError, match="the server has no run 'unknown'"):
        begin(elsewhere).bring_earlier("lead")


def test_a_run_that_is_not_finished_or_does_not_fit_is_not_begun_with(earlier, begin, tmp_path):
    with pytest.raises(FlamesError, match="not of this network"):
        begin("first-run", model={"name": "student"}).bring_earlier("lead")
    shutil.rmtree(tmp_path / "runs" / "second")
    (earlier / "summary.json").unlink()
    with pytest.raises(FlamesError, match="the run is not finished"):
        begin("first-run").bring_earlier("lead")


def test_without_an_earlier_run_nothing_is_brought(make_config, tmp_path):
    state = RunState.claim(tmp_path / "run", dump_config(make_config()), everybody=True)
    state.bring_earlier("lead")
    assert kept(state) == []
