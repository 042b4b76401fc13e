from __future__ import annotations

from pathlib import Path

import pytest

from flames.config import RunConfig, dump_config, load_config
from flames.errors import FlamesError

SITES = '[[sites]]\nname = "a"\nstore = "stores/a"\n\n[[sites]]\nname = "b"\nstore = "/far/b"\n'


def write(tmp_path: Path, head: str = "", sites: str = SITES) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(head + "\n" + sites, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("head", "place", "hint"),
    [
        ("ronds = 3", "'ronds'", "did you mean 'rounds'?"),
        ("[training]\nlocal-stps = 3", "'training.local-stps'", "did you mean 'local-steps'?"),
        ("[training]\nlocal_stps = 3", "'training.local_stps'", "did you mean 'local-steps'?"),
        ('[[sites]]\nname = "c"\nstor = "x"\nstore = "x"', "'sites.0.stor'", "'store'"),
        ("[evaluation]\nzzz = 1", "'evaluation.zzz'", "known: batch-size, flip"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, head, place, hint):
    with pytest.raises(FlamesError) as caught:
        load_config(write(tmp_path, head))
    assert f"unknown key {place}" in caught.value.found
    assert hint in caught.value.remedy


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("rounds = ", "not valid TOML"),
        ("rounds = 0", "rounds: .*greater than or equal to 1, found 0"),
        ('profile = "papre"', "profile: .*'flames' or 'paper'"),
        ("[training]\nwarmup = 1.0", "training.warmup"),
        ("[data]\nimage-size = 8", "data.image-size"),
        ("[strategy]\nalpha = 1.5", "strategy.alpha: an own share lies in 0 to 1.*found 1.5"),
        ("[strategy]\nalpha = nan", "strategy.alpha: .*found nan"),
    ],
)
def test_a_bad_value_is_named(tmp_path, head, words):
    with pytest.raises(FlamesError, match=words):
        load_config(write(tmp_path, head))


def test_a_missing_file_and_missing_sites_are_named(tmp_path):
    with pytest.raises(FlamesError, match="cannot read"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(FlamesError, match="'sites' is missing"):
        load_config(write(tmp_path, sites=""))


def test_a_site_listed_twice_is_refused(tmp_path):
    with pytest.raises(FlamesError, match="'a' is listed twice"):
        load_config(write(tmp_path, sites=SITES + SITES))


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "a b"])
def test_a_site_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(FlamesError, match=r"sites\.0\.name"):
        load_config(write(tmp_path, sites=f'[[sites]]\nname = "{name}"\nstore = "x"\n'))


def test_stores_start_at_the_files_folder(tmp_path):
    config = load_config(write(tmp_path, '[model]\nweights = "w.safetensors"'))
    assert [site.store for site in config.sites] == [tmp_path / "stores" / "a", Path("/far/b")]
    assert config.model.weights == tmp_path / "w.safetensors"


def test_an_override_wins_over_the_file(tmp_path):
    path = write(tmp_path, "rounds = 3\n[training]\nlocal-steps = 7\nbatch-size = 5")
    config = load_config(
        path, {"rounds": "9", "training.local-steps": "20", "strategy.name": "local"}
    )
    assert (config.rounds, config.training.local_steps) == (9, 20)
    assert config.training.batch_size == 5
    assert config.strategy.name == "local"


def test_an_override_of_something_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(FlamesError, match="'rounds' is not a table"):
        load_config(write(tmp_path, "rounds = 3"), {"rounds.deep": "1"})


@pytest.mark.parametrize(
    "head",
    [
        "",
        'profile = "paper"\nrounds = 3\n[model]\nweights = "w.safetensors"',
        "seed = 4\n[strategy]\nalpha = 0.7\n[training]\nlearning-rate = 1e-4\nwarmup = 0.3",
    ],
)
def test_dump_then_load_is_equal(tmp_path, head):
    config = load_config(write(tmp_path, head))
    again = tmp_path / "elsewhere" / "config.toml"
    again.parent.mkdir()
    again.write_text(dump_config(config), encoding="utf-8")
    assert load_config(again) == config


def test_a_dump_writes_every_default(tmp_path):
    text = dump_config(load_config(write(tmp_path)))
    for section in ("model", "data", "training", "strategy", "evaluation"):
        fields = RunConfig.model_fields[section].annotation.model_fields
        for name, field in fields.items():
            assert field.default is None or f"{name.replace('_', '-')} = " in text


def test_the_papers_profile_is_the_published_recipe(tmp_path):
    config = load_config(write(tmp_path, 'profile = "paper"'))
    assert config.rounds == 100
    assert config.model.name == "densenet-unet"
    assert (config.data.image_size, config.data.augment) == (240, False)
    training = config.training
    assert (training.batch_size, training.optimizer, training.loss) == (64, "adam", "paper")
    assert (training.weight_decay, training.warmup) == (0, 0)
    assert config.strategy.name == "paper"


def test_the_file_wins_over_the_profile(tmp_path):
    head = 'profile = "paper"\nrounds = 3\n[training]\nbatch-size = 4\n[strategy]\nname = "local"'
    config = load_config(write(tmp_path, head))
    assert (config.rounds, config.training.batch_size, config.strategy.name) == (3, 4, "local")
    assert config.training.loss == "paper"


def test_without_a_profile_the_corrected_method_runs(tmp_path):
    config = load_config(write(tmp_path))
    assert (config.profile, config.strategy.name, config.strategy.alpha) == (
        "flames",
        "flames",
        "tuned",
    )
    assert (config.model.name, config.training.optimizer) == ("unet", "adamw")
