"""The studies' one command, their page and their tables name the same things."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"
SCRIPT = FOLDER / "make_tables.sh"


@pytest.fixture
def script(tmp_path):
    """Return a copy of the script, beside no stores."""
    copy = tmp_path / "experiments" / SCRIPT.name
    copy.parent.mkdir()
    return shutil.copy(SCRIPT, copy)


def called(script, *arguments):
    done = subprocess.run(
        ["sh", str(script), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


def test_the_page_has_every_table_that_the_script_makes():
    page = (FOLDER / "studies.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    script = SCRIPT.read_text(encoding="utf-8")
    (every,) = re.findall(r"^\[ \$# -gt 0 \] \|\| set -- (.+)$", script, re.MULTILINE)
    assert named == every.split()
    for name in named:
        assert f"\n{name}() {{" in script


def test_every_table_is_on_the_page():
    page = (FOLDER / "studies.md").read_text(encoding="utf-8")
    patterns = re.findall(r"`([\w*-]+\.csv)`", page)
    tables = [path.name for path in FOLDER.glob("*.csv")]
    assert tables
    assert [t for t in tables if not any(fnmatch(t, pattern) for pattern in patterns)] == []
    assert [p for p in patterns if not any(fnmatch(t, p) for t in tables)] == []


def test_the_drawing_shows_the_table(tmp_path):
    drawn = tmp_path / "dice.svg"
    called_python = [sys.executable, FOLDER / "draw_dice.py", "--out", drawn]
    subprocess.run(called_python, check=True, timeout=60)
    shown = FOLDER.parent / "docs/images/dice.svg"
    assert shown.read_text(encoding="utf-8") == drawn.read_text(encoding="utf-8")


def test_without_stores_it_says_how_to_make_them(script, tmp_path):
    code, told = called(script, tmp_path / "runs", "quick")
    assert code == 1
    assert "prepare_real_stores.sh DATA stores" in told
    assert not (tmp_path / "runs").exists()


def test_an_unknown_table_is_refused(script, tmp_path):
    store = tmp_path / "stores" / "us-breast" / "store.json"
    store.parent.mkdir(parents=True)
    store.write_text("{}", encoding="utf-8")
    code, told = called(script, tmp_path / "runs", "nonsense")
    assert code == 1
    assert "no table is named nonsense" in told
