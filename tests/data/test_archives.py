"""What is unpacked of a ZIP are patients' images: it never stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flames.data.archives import unpacked
from flames.errors import FlamesError

UNPACK = """
import sys, time
from pathlib import Path
from flames.data.archives import unpacked
with unpacked(Path(sys.argv[1]), Path(sys.argv[2])) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/one.png", b"one")
    return path


def begun(archive: Path, beside: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", UNPACK, str(archive), str(beside)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str], by: signal.Signals) -> int:
    process.send_signal(by)
    process.communicate(timeout=30)
    return process.returncode


def test_a_process_that_is_asked_to_stop_takes_it_away(archive: Path, tmp_path: Path) -> None:
    process, folder = begun(archive, tmp_path / "out")
    assert (folder / "a" / "one.png").read_bytes() == b"one"
    assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM
    assert not list((tmp_path / "out").iterdir())


def test_the_next_takes_away_what_a_killed_one_left(archive: Path, tmp_path: Path) -> None:
    beside = tmp_path / "out"
    (beside / ".unpacked-mine").mkdir(parents=True)  # not of this program
    alive, in_use = begun(archive, beside)
    killed, left = begun(archive, beside)
    end(killed, signal.SIGKILL)
    assert left.exists()
    with unpacked(archive, beside) as folder:
        assert folder.name == "scans"
        assert not left.parent.exists()
    assert (in_use / "a" / "one.png").exists()
    end(alive, signal.SIGTERM)
    assert [path.name for path in beside.iterdir()] == [".unpacked-mine"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_error_names_files_by_the_zip(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FlamesError) as caught, unpacked(archive, tmp_path / "out") as folder:
        raise FlamesError(f"{folder}/a/one.png is damaged", f"mend {folder}/a")
    assert caught.value.found == f"{archive}/a/one.png is damaged"
    assert caught.value.remedy == f"mend {archive}/a"
