"""What does `flames run --jobs` gain?

usage: python benchmarks/side_by_side.py FEDERATION.toml [--jobs 1,2] [--set KEY=VALUE …]
       [--out benchmarks/side_by_side.csv]

The same run once for each number of jobs and once more for the first, one after another: with one
thread each, with PyTorch's own number of threads for the first, and with the processor shared among
the others. Seconds are of the whole command, imports and scoring included. That runs with equal
threads end with equal models is checked.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flames.runs import RunFolder, save_csv


def seconds(federation: Path, out: Path, jobs: int, settings: list[str]) -> float:
    command = [str(Path(sys.executable).with_name("flames")), "run", str(federation)]
    command += ["--out", str(out), "--jobs", str(jobs), "--quiet"]
    for setting in settings:
        command += ["--set", setting]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("federation", type=Path)
    parser.add_argument("--jobs", default="1,2")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    numbers = [int(number) for number in options.jobs.split(",")]
    rows: list[dict[str, object]] = []
    for threads in (1, 0):
        spent, models = [], []
        for count, jobs in enumerate([*numbers, numbers[0]]):
            with tempfile.TemporaryDirectory() as folder:
                run = RunFolder(Path(folder) / "run")
                settings = [*options.settings, f"threads={threads}"]
                spent.append(seconds(options.federation, run.path, jobs, settings))
                files = sorted(run.personal_models().items())
                models.append([path.read_bytes() for _, path in files])
            if threads and models[count] != models[0]:
                raise SystemExit(f"--jobs {jobs} ended with other models")
        first = (spent[0] + spent[-1]) / 2
        for jobs, taken in zip(numbers, [first, *spent[1:-1]], strict=True):
            rows.append(
                {
                    "threads": threads or "own",
                    "jobs": jobs,
                    "seconds": round(taken, 1),
                    "ratio": round(first / taken, 2),
                    "first_runs": f"{spent[0]:.1f} {spent[-1]:.1f}" if jobs == numbers[0] else "",
                }
            )
    save_csv(options.out, rows)
    print(options.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
