"""The command line, as a person's terminal would run it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flames.cli.main import main

# The writers of made-up DICOM of the tests of reading.
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))


@pytest.fixture
def flames(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command line: ``flames("run", …) -> code, out, err``."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flames", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run
