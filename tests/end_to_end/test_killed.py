from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import flames.models  # noqa: F401
from flames.config import load_config
from flames.federation.simulation import simulate
from flames.runs import RunFolder

RUN = (
    "import sys, flames.models\n"
    "sys.modules['flames.models.unet'].FILTERS = (4, 8, 16)\n"
    "from flames.cli.main import main\n"
    "main()\n"
)


def contents(run: RunFolder) -> dict[str, bytes]:
    files = [*run.server_models().values(), *run.personal_models().values(), run.cases]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def test_a_process_killed_at_any_moment_continues_bit_for_bit(
    site_stores, make_config, tmp_path, monkeypatch
):
    from flames.config import dump_config

    config = make_config("us-a", "us-b", rounds=4)
    file, out = tmp_path / "federation.toml", tmp_path / "killed"
    file.write_text(dump_config(config), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    events = random.SystemRandom().randint(1, 60)
    arguments = ["run", str(file), "--out", str(out), "--quiet"]
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], env=environment)
    seen: set[str] = set()
    try:
        while process.poll() is None and len(seen) < events:
            for folder, _, files in os.walk(out):  # passes over folders that vanish meanwhile
                seen |= {folder, *(f"{folder}/{file}" for file in files)}
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait(timeout=30) in (-signal.SIGKILL, 0)
    monkeypatch.setattr(sys.modules["flames.models.unet"], "FILTERS", (4, 8, 16))
    resumed = simulate(load_config(file), out, resume=True)
    unbroken = simulate(load_config(file), tmp_path / "unbroken")
    assert contents(resumed) == contents(unbroken), f"killed after {len(seen)} files"
