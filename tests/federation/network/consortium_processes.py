"""A real consortium for tests: processes of their own, mutual TLS, loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flames.data.store import SiteStore
from flames.federation.network.journal import Journal
from flames.federation.network.membership import found_consortium

FLAMES = (sys.executable, "-c", "from flames.cli.main import main; main()")
PERSON = "lead@example.org"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@dataclass
class Processes:
    """Server, sites and people of one consortium."""

    folder: Path
    stores: dict[str, SiteStore]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def kits(self) -> Path:
        return self.folder / "kits"

    @property
    def person(self) -> Path:
        return self.kits / "people" / PERSON

    def found(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sites = "".join(
            f'[[sites]]\nname = "{name}"\nmodality = "{store.modality}"\norgan = "{store.organ}"\n'
            for name, store in self.stores.items()
        )
        toml = self.folder / "consortium.toml"
        toml.write_text(
            f'name = "tests"\nserver = "localhost:{port}"\n{sites}[[people]]\nname = "{PERSON}"\n'
        )
        found_consortium(toml, self.kits)

    def flames(self, *words: object, log: str) -> subprocess.Popen[bytes]:
        """Start one command of the command line."""
        with (self.folder / f"{log}.log").open("ab") as out:
            return subprocess.Popen(
                [*FLAMES, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=ENVIRONMENT,
            )

    def start_server(self) -> None:
        kit = self.kits / "server"
        self.running["server"] = self.flames("server", "start", "--kit", kit, log="server")

    def start_site(self, name: str, *more: object) -> None:
        kit = self.kits / "sites" / name
        words = ("site", "start", "--kit", kit, "--store", self.stores[name].path, *more)
        self.running[name] = self.flames(*words, log=name)

    def start(self, policies: dict[str, str] | None = None) -> None:
        self.start_server()
        for name in self.stores:
            more: list[object] = []
            if name in (policies or {}):
                file = self.folder / f"{name}-policy.toml"
                file.write_text((policies or {})[name])
                more = ["--policy", file]
            self.start_site(name, *more)

    def do(self, *words: object, log: str) -> tuple[int, str]:
        """Give one command and return its exit code and what it said."""
        done = subprocess.run(
            [*FLAMES, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT, timeout=60
        )
        with (self.folder / f"{log}.log").open("a") as file:
            file.write(done.stdout + done.stderr)
        return done.returncode, done.stdout

    def events(self, kit: str) -> list[str]:
        path = self.kits / kit / "events.jsonl"
        if not path.exists():
            return []
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]

    def job_processes(self, name: str) -> list[psutil.Process]:
        """Return the engine's processes that do a job for ``name``: forks of its fork server."""
        found = []
        for process in self.family(name):
            try:
                parent = process.parent()
                if parent is not None and "forkserver" in " ".join(parent.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def family(self, name: str) -> list[psutil.Process]:
        try:
            return psutil.Process(self.running[name].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self, name: str) -> None:
        """Kill everything of a site or the server at once, as a power cut does."""
        family = self.family(name)
        self.running[name].kill()
        self.running[name].wait()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        del self.running[name]

    def freeze(self, name: str) -> list[psutil.Process]:
        """Stop everything of a site with SIGSTOP; return what `thaw` needs."""
        family = [psutil.Process(self.running[name].pid), *self.family(name)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        return family

    @staticmethod
    def thaw(family: list[psutil.Process]) -> None:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def run_events(self, run: str) -> list[str]:
        """Return what a run's journal says, at the server."""
        path = self.kits / "server" / "runs" / run / "state" / "events.jsonl"
        return [event["text"] for event in Journal(path).read()]

    def stop(self) -> None:
        """Stop everything, and check that nothing is left."""
        families = [process for name in self.running for process in self.family(name)]
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(timeout=60)
        self.running.clear()
        _, alive = psutil.wait_procs(families, timeout=10)
        for process in alive:
            process.kill()
        assert not alive, f"left running: {alive}"

    def say(self) -> str:
        """Return the ends of all logs, for a failed test."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)


def wait_until(what, seconds: float, why: str = "") -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"waited {seconds} s in vain: {why}"
        time.sleep(0.1)
