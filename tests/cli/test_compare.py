from __future__ import annotations

import pytest


@pytest.mark.parametrize("folds", [1, 2])
def test_too_few_folds_are_refused_by_the_option_and_not_by_the_file(flames, tmp_path, folds):
    file = tmp_path / "federation.toml"
    file.write_text('[[sites]]\nname = "a"\nstore = "a"\n', encoding="utf-8")
    code, _, err = flames("compare", file, "--folds", folds, "--out", tmp_path / "o")
    assert code == 2
    assert f"--folds {folds}" in err
    assert "federation.toml" not in err
    assert "--folds 3" in err
