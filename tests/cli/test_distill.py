from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("choice", "found"),
    [(("--modality", "US"), "a student of US alone"), (("--student", "unet"), "'unet' cannot")],
)
def test_a_student_that_cannot_listen_is_not_told(flames, tmp_path, choice, found):
    code, _, err = flames("distill", tmp_path, "--out", tmp_path / "o", "--told", "yes", *choice)
    assert code == 2
    assert found in err
    assert "--told no" in err
