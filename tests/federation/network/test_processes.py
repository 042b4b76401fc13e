"""One federation with real processes over mutual TLS, and what is left of it afterwards."""

from __future__ import annotations

import json
import subprocess

import pytest

from flames.config import dump_config
from flames.federation.simulation import simulate
from flames.runs import RunFolder

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from consortium_processes import Processes, wait_until


@pytest.fixture
def processes(tmp_path, site_stores):
    made = Processes(tmp_path, site_stores)
    made.found()
    yield made
    made.stop()


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    """Train the real network: the processes cannot be told of a smaller one."""
    return


def run(processes, config, *more, name="run", seconds=300, meanwhile=lambda: None):
    file = processes.folder / "federation.toml"
    file.write_text(dump_config(config), encoding="utf-8")
    out = processes.folder / name
    command = processes.flames("run", file, "--on", processes.person, "--out", out, *more, log=name)
    try:
        meanwhile()
        code = command.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        command.kill()
        pytest.fail(processes.say())
    assert code == 0, processes.say()
    return RunFolder(out)


def test_a_run_over_mutual_tls_is_the_simulation_bit_for_bit(
    processes, make_config, as_simulated, tmp_path
):
    processes.start({"us-a": 'approval = true\nstrategies = ["flames"]\n'})
    config = make_config()
    kits = {name: processes.kits / "sites" / name for name in processes.stores}

    def approve():
        waits = "waits: a person at the site must approve the run"
        try:
            wait_until(lambda: waits in processes.events("sites/us-a"), 250)
        except AssertionError:
            pytest.fail(processes.say())
        _, out = processes.do("site", "status", "--kit", kits["us-a"], "--json", log="status")
        (waiting,) = (order["run"] for order in json.loads(out)["runs"] if order["waits"])
        assert (
            processes.do("site", "approve", waiting, "--kit", kits["us-a"], log="approve")[0] == 0
        )

    finished = run(processes, config, meanwhile=approve)
    simulated = simulate(config, tmp_path / "simulated")
    assert as_simulated(finished) == as_simulated(simulated)
    assert finished.report.exists()
    served = processes.events("server")
    for kit in kits.values():
        code, said = processes.do("site", "log", "--kit", kit, "--verify", log="verify")
        assert code == 0
        assert said.startswith("whole: ")
        _, lines = processes.do("site", "log", "--kit", kit, "--json", log="log")
        purposes = [json.loads(line)["purpose"] for line in lines.splitlines()]
        hellos, updates, scores = (purposes.count(w) for w in ("hello", "update", "scores"))
        # On a busy machine another job may take over: it costs a hello, and may ask once more.
        again = hellos - 1
        assert again >= 0
        assert 3 <= updates <= 3 + again
        assert 1 <= scores <= 1 + again
    assert {"us-a is connected", "us-b is connected", "mr-a is connected"} <= set(served)


def test_a_run_begins_with_the_models_of_an_earlier_one(
    processes, make_config, as_simulated, tmp_path
):
    processes.start()
    config = make_config(rounds=1)
    first = run(processes, config, name="first")
    second = run(processes, config, "--start", first.path, name="second")
    simulated = simulate(config, tmp_path / "simulated-first")
    again = make_config(rounds=1, start=simulated.path)
    assert as_simulated(second) == as_simulated(simulate(again, tmp_path / "simulated"))
    assert as_simulated(second) != as_simulated(first)
    began = json.loads(second.environment.read_text(encoding="utf-8"))["start"]
    assert sorted(began) == ["MR", "US"]
    shown = second.report.read_text(encoding="utf-8")
    ticket = json.loads((first.path / "network.json").read_text(encoding="utf-8"))
    assert f"<dd>{ticket['run']}</dd>" in shown.replace("\n", "")
