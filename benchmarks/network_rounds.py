"""How long do a consortium's first round and every round take, and how many sites fit a machine?

usage: python benchmarks/network_rounds.py [--only start,turns,twelve,simulated] [--out FILE.csv]

Server, sites and people are processes of their own, with mutual TLS on loopback, all on this
machine, started by the commands of the documentation; images are made up.

``start``      seconds from ``flames consortium init`` to the end of the first round with three
               sites; and of the rounds after it, the time between the ends of two rounds beyond
               what the slowest site took to train, validate and load, or all three where they
               took turns: what a round costs beside local work, with the default network and 128
               pixels.
``turns``      four sites, turns of one step, which need many rounds: what a round takes of the run,
               and what of that is local work, with the default network and 96 pixels.
``twelve``     twelve sites, three rounds and the closing one: every update arrives. Memory is the
               sum of proportional set sizes (PSS) of all processes at its highest.
``simulated``  a hundred sites in ``flames run``, in one process, one step a round.

Each question replaces its own rows of the file. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from flames.data.synthetic import make_store
from flames.runs import RunFolder, save_csv

FLAMES = (sys.executable, "-c", "from flames.cli.main import main; main()")
PERSON = "lead@example.org"
LOOK_SECONDS = 0.01
NOTE = (
    "all on one machine with two cores; load is the mean of the last minute, its own processes too"
)
Row = dict[str, Any]


class Consortium:
    """Server and sites as processes, each at work in its own kit."""

    def __init__(self, folder: Path, sites: int, cases: int) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.stores = {f"us-{n:02d}": folder / "stores" / f"us-{n:02d}" for n in range(sites)}
        for seed, (name, path) in enumerate(self.stores.items()):
            make_store(path, site=name, modality="US", organ="breast", seed=seed, cases=cases)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        entries = "".join(
            f'[[sites]]\nname = "{name}"\nmodality = "US"\norgan = "breast"\n'
            for name in self.stores
        )
        self.toml = folder / "consortium.toml"
        self.toml.write_text(
            f'name = "bench"\nserver = "localhost:{port}"\n{entries}'
            f'[[people]]\nname = "{PERSON}"\n',
            encoding="utf-8",
        )

    @property
    def kits(self) -> Path:
        return self.folder / "kits"

    def flames(self, *words: object) -> subprocess.Popen[bytes]:
        with (self.folder / "log.txt").open("ab") as out:
            return subprocess.Popen(
                [*FLAMES, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def init(self) -> None:
        made = self.flames("consortium", "init", self.toml, "--out", self.kits)
        if made.wait() != 0:
            raise SystemExit(self.log())

    def start(self) -> None:
        self.running.append(self.flames("server", "start", "--kit", self.kits / "server"))
        for name, store in self.stores.items():
            kit = self.kits / "sites" / name
            self.running.append(self.flames("site", "start", "--kit", kit, "--store", store))

    def run(self, toml: str, look: Callable[[int], None]) -> RunFolder:
        """Run a federation; ``look`` is called again and again with the last finished round."""
        file, out = self.folder / "federation.toml", self.folder / "run"
        file.write_text(toml, encoding="utf-8")
        while True:
            words = ("run", file, "--on", self.kits / "people" / PERSON, "--out", out)
            person = self.flames(*words)
            while person.poll() is None:
                look(self.finished())
                time.sleep(LOOK_SECONDS)
            if person.returncode == 0:
                return RunFolder(out)
            if (out / "network.json").exists():
                raise SystemExit(self.log())
            time.sleep(0.5)  # the server was not there yet

    def carry_out(self, toml: str, look: Callable[[int], None]) -> RunFolder:
        """Make the kits, start everybody, run a federation and end everybody."""
        self.init()
        try:
            self.start()
            return self.run(toml, look)
        finally:
            self.stop()

    def finished(self) -> int:
        found = (self.kits / "server" / "runs").glob("*/state/server/round-*")
        return max((int(path.name[6:]) for path in found), default=0)

    def memory(self) -> tuple[int, int]:
        """Return bytes and number of the processes."""
        total, count = 0, 0
        for started in self.running:
            for process in psutil.Process(started.pid).children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                    count += 1
                except psutil.Error:
                    continue
        return total, count

    def processor_seconds(self) -> float:
        """Return what server and sites used so far."""
        total = 0.0
        for started in self.running:
            family = psutil.Process(started.pid)
            for process in [family, *family.children(recursive=True)]:
                try:
                    total += sum(process.cpu_times()[:4])
                except psutil.Error:
                    continue
        return total

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8")[-3000:]

    def stop(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait()


def federation(rounds: int, **training: object) -> str:
    size = training.pop("size", 128)
    table = "".join(f"{key.replace('_', '-')} = {value}\n" for key, value in training.items())
    return (
        f"seed = 0\nrounds = {rounds}\nthreads = 1\n[data]\nimage-size = {size}\n"
        f"[training]\n{table}[evaluation]\nresamples = 100\n"
    )


def start(folder: Path) -> list[Row]:
    made = Consortium(folder, sites=3, cases=12)
    ends: dict[int, float] = {}
    used: list[float] = []

    def look(number: int) -> None:
        ends.setdefault(number, time.monotonic())
        if number == 1 and not used:
            used.append(made.processor_seconds())

    begun = time.monotonic()
    run = made.carry_out(federation(4, local_steps=2, batch_size=4, validation_images=8), look)
    work: dict[int, list[float]] = {}
    turns: set[int] = set()
    for record in run.load_rounds():
        if record["kind"] == "site":
            work.setdefault(int(record["round"]), []).append(sum(record["seconds"].values()))
            if record["chosen"] == "mixture" and record["alpha"] == 0:
                turns.add(int(record["round"]))
    rows = [row("start", "init to the first finished round", ends[1] - begun, "s", "under 90")]
    rows.append(row("start", "processor time of all processes until then", used[0], "s", ""))
    for number in sorted(set(ends) - {0, 1}):
        whole = ends[number] - ends[number - 1]
        beside = whole - (sum if number in turns else max)(work[number])
        kind = f"round {number}" if number <= 4 else "closing round"
        kind += ", three in turn" if number in turns else ""
        rows.append(row("start", f"{kind}: whole", whole, "s", ""))
        rows.append(row("start", f"{kind}: beside local work", beside, "s", "at most 2"))
    return rows


def turns(folder: Path) -> list[Row]:
    made, rounds = Consortium(folder, sites=4, cases=12), 30
    ends: dict[int, float] = {}

    def look(number: int) -> None:
        ends.setdefault(number, time.monotonic())

    run = made.carry_out(federation(rounds, local_steps=1, size=96), look)
    sites = [r for r in run.load_rounds() if r["kind"] == "site" and 2 < r["round"] <= rounds]
    took = (max(ends.values()) - ends[2]) / (max(ends) - 2)
    local = sum(sum(r["seconds"].values()) for r in sites) / (rounds - 2)
    in_turn = sum(r["chosen"] == "mixture" and r["alpha"] == 0 for r in sites)
    bytes_up = sum(r["bytes_up"] for r in sites) / len(sites)
    bytes_down = sum(r["bytes_down"] for r in sites) / len(sites)
    return [
        row("turns", "mean of the rounds after the second", took, "s", ""),
        row("turns", "local work of all four in it, one after another", local, "s", ""),
        row(
            "turns", "turns begun with what the one before trained", in_turn, f"of {len(sites)}", ""
        ),
        row("turns", "a site and round, up", bytes_up / 1e6, "MB", ""),
        row("turns", "a site and round, down", bytes_down / 1e6, "MB", ""),
    ]


def twelve(folder: Path) -> list[Row]:
    made = Consortium(folder, sites=12, cases=12)
    most, count, ends, last = [0], [0], dict[int, float](), [0.0]

    def look(number: int) -> None:
        ends.setdefault(number, time.monotonic())
        if time.monotonic() - last[0] > 5:
            last[0] = time.monotonic()
            total, processes = made.memory()
            most[0], count[0] = max(most[0], total), max(count[0], processes)

    begun = time.monotonic()
    run = made.carry_out(federation(3, local_steps=1, batch_size=4, size=64), look)
    arrived = [r for r in run.load_rounds() if r["kind"] == "site"]
    rounds = [max(ends[n] - ends[n - 1], 0.0) for n in sorted(ends) if n > 1]
    return [
        row("twelve", "updates that arrived", len(arrived), "of 48", "48"),
        row("twelve", "personal models at the end", len(run.personal_models()), "of 12", "12"),
        row("twelve", "init to the first finished round", ends[1] - begun, "s", ""),
        row("twelve", "mean of the rounds after it", sum(rounds) / len(rounds), "s", ""),
        row("twelve", "memory of all processes", most[0] / 1e9, "GB of PSS", ""),
        row("twelve", "processes of the engine", count[0], "", ""),
    ]


def simulated(folder: Path) -> list[Row]:
    entries = ""
    for seed in range(100):
        place = folder / "stores" / f"us-{seed:02d}"
        make_store(place, site=place.name, modality="US", organ="breast", seed=seed, cases=12)
        entries += f'[[sites]]\nname = "{place.name}"\nstore = "{place}"\n'
    file = folder / "federation.toml"
    text = federation(2, local_steps=1, batch_size=4, validation_images=4)
    file.write_text(text + entries, encoding="utf-8")
    begun = time.monotonic()
    command = [*FLAMES, "run", str(file), "--out", str(folder / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = RunFolder(folder / "run")
    arrived = [r for r in run.load_rounds() if r["kind"] == "site"]
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    return [
        row("simulated", "updates", len(arrived), "of 300", "300"),
        row("simulated", "whole run, scores and report too", time.monotonic() - begun, "s", ""),
        row("simulated", "processor time", used.ru_utime + used.ru_stime, "s", ""),
        row("simulated", "peak memory", used.ru_maxrss / 1e6, "GB", ""),
        row("simulated", "run folder", size / 1e9, "GB", ""),
    ]


def row(question: str, what: str, value: float, unit: str, target: str) -> Row:
    return {
        "question": question,
        "what": what,
        "value": round(value, 2),
        "unit": unit,
        "target": target,
        "load": round(os.getloadavg()[0], 1),
        "note": NOTE,
    }


QUESTIONS = {"start": start, "turns": turns, "twelve": twelve, "simulated": simulated}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(QUESTIONS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    known: list[Row] = []
    if options.out.exists():
        with options.out.open(encoding="utf-8", newline="") as file:
            known = list(csv.DictReader(file))
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = QUESTIONS[name](Path(folder))
        known = [old for old in known if old["question"] != name] + found
        save_csv(options.out, known)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
