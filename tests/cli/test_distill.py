from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from flames.cli.progress import print_rows


@pytest.mark.parametrize(
    ("choice", "found"),
    [(("--modality", "US"), "a student of US alone"), (("--student", "unet"), "'unet' cannot")],
)
def test_a_student_that_cannot_listen_is_not_told(flames, tmp_path, choice, found):
    code, _, err = flames("distill", tmp_path, "--out", tmp_path / "o", "--told", "yes", *choice)
    assert code == 2
    assert found in err
    assert "--told no" in err


def test_no_name_of_a_student_is_cut_off_in_a_terminal_of_eighty_columns():
    head = ("Model", "Dice", "Minus teacher", "Parameters", "ms alone", "ms in batch")
    console = Console(file=StringIO(), width=80)
    print_rows(console, head, [["untold-nolabels", "0.026", "−0.091", "1 942 049", "61.3", "12.4"]])
    assert "untold-nolabels" in console.file.getvalue()
