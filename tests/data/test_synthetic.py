from itertools import pairwise

import numpy as np
import pytest

from flames.cli.data_make import make
from flames.data.normalise import normalise
from flames.data.store import SPLITS, SiteStore
from flames.data.synthetic import magnetic, make_federation, make_store, tomography, ultrasound
from flames.data.synthetic.fields import Grid, Scene, smooth_noise
from flames.data.synthetic.hospitals import HOSPITALS, SIDES
from flames.data.synthetic.looks import TUMOURS
from flames.data.synthetic.stores import plan_patients
from flames.errors import FlamesError

CASES = 15  # 4 train, 3 val, 8 test


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    paths = make_federation(tmp_path_factory.mktemp("made"), seed=3, cases=CASES)
    return [SiteStore.open(path) for path in paths]


def test_six_valid_stores_two_a_modality(stores):
    assert [store.site for store in stores] == list(HOSPITALS)
    assert sorted(store.modality for store in stores) == ["CT", "CT", "MR", "MR", "US", "US"]
    for store in stores:
        store.verify()
        assert store.info.made_up
        assert len(store.info.cases) == 15


def test_records_say_what_the_arrays_hold(stores):
    for store in stores:
        for case in store.info.cases:
            image, label = store.image(case.case_id), store.label(case.case_id)
            assert image.dtype == {"US": np.uint8, "MR": np.uint16, "CT": np.int16}[store.modality]
            assert label.dtype == np.uint8
            assert label.max() == int(case.has_tumour)
            assert label.sum() == case.tumour_voxels
            assert (case.category == "none") != case.has_tumour
            assert (case.affine is None) == (image.ndim == 2) == (case.slice_axis is None)
            if case.affine is not None:
                assert np.diag(case.affine)[:3] == pytest.approx(case.spacing)


def test_every_side_has_cases_with_and_without_tumour(stores):
    for store in stores:
        for side in SPLITS:
            assert {case.has_tumour for case in store.split(side)} == {True, False}


def test_patients_stay_on_one_side_and_some_have_two_images(stores):
    for store in stores:
        sides = {side: {case.group for case in store.split(side)} for side in SPLITS}
        assert sum(map(len, sides.values())) == len(set.union(*sides.values()))
        assert len(set.union(*sides.values())) < len(store.info.cases)


def test_two_images_of_a_patient_are_alike_but_not_equal(stores):
    for store in stores:
        cases = sorted(store.info.cases, key=lambda case: case.case_id)
        pairs = [(a, b) for a, b in pairwise(cases) if a.group == b.group]
        assert pairs
        one, two = pairs[0]
        assert np.array_equal(store.label(one.case_id), store.label(two.case_id))
        first, second = (store.image(c.case_id).astype(float).ravel() for c in (one, two))
        assert 0.6 < np.corrcoef(first, second)[0, 1] < 1 - 1e-6


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    def digests(name, seed):
        store = make_store(
            tmp_path / name, site="s", modality="US", organ="ovary", seed=seed, cases=12
        )
        return [case.arrays_sha256 for case in store.info.cases]

    assert digests("a", 0) == digests("b", 0)
    assert not set(digests("c", 0)) & set(digests("d", 1))
    assert (tmp_path / "a/store.json").read_bytes() == (tmp_path / "b/store.json").read_bytes()


def test_intensity_alone_does_not_find_the_tumours(stores):
    """The best band of intensities, chosen on the very same cases, stays below Dice 0.5."""
    for store in stores:
        found, missed = np.zeros(65), np.zeros(65)
        for case in store.info.cases:
            image = normalise(store.image(case.case_id), case.intensity)
            label = store.label(case.case_id) > 0
            for counts, voxels in ((found, image[label]), (missed, image[~label])):
                counts[1:] += np.histogram(voxels, 64, (-1, 1))[0].cumsum()
        inside = found[None, :] - found[:, None]
        chosen = inside + missed[None, :] - missed[:, None]
        dice = np.triu(2 * inside / np.maximum(chosen + found[-1], 1), 1)
        assert dice.max() < 0.5, store.site


@pytest.mark.parametrize("site", HOSPITALS)
def test_training_is_lopsided_and_testing_is_even(site):
    hospital = HOSPITALS[site]
    patients = plan_patients(hospital, SIDES, np.random.default_rng(0))
    assert sum(patient.images for patient in patients) == sum(SIDES)

    def counts(side):
        looks = [patient.look for patient in patients if patient.split == side and patient.look]
        return [looks.count(look) for look in TUMOURS[hospital.modality]]

    assert max(counts("train")) >= 0.5 * sum(counts("train"))
    assert max(counts("test")) - min(counts("test")) <= 1


def test_hospitals_of_a_modality_train_on_different_looks_and_on_all_together():
    for modality in TUMOURS:
        one, other = (np.array(h.mix) for h in HOSPITALS.values() if h.modality == modality)
        assert not (one * other).any()
        assert (one + other).all()


def test_a_hospital_has_as_many_cases_as_it_says(tmp_path):
    store = make_store(tmp_path / "o", site="o", modality="US", organ="ovary", seed=0)
    assert tuple(len(store.split(side)) for side in SPLITS) == SIDES


def even_scene(shape, level):
    everywhere = np.ones(shape, bool)
    return Scene(Grid(shape), np.full(shape, level), everywhere, everywhere, np.zeros(shape))


def scan(scene, **changes):
    machine = {"curved": False, "gain": -20, "dynamic_range": 60, "lateral": 1.1, "compound": 1}
    return ultrasound.acquire(scene, np.random.default_rng(0), **{**machine, **changes})


def test_ultrasound_of_even_tissue_is_rayleigh_speckle():
    grey = scan(even_scene((256, 256, 1), 0.0)).astype(float)
    envelope = 10 ** ((grey / 255 - 1) * 60 / 20)
    # a Rayleigh amplitude has mean/deviation = sqrt(pi / (4 - pi)) = 1.913
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, abs=0.06)


@pytest.mark.parametrize(("loss", "change"), [(0.5, -10.0), (-0.3, 6.0)])
def test_below_a_lesion_ultrasound_is_darker_and_below_a_cyst_brighter(loss, change):
    scene = even_scene((120, 120, 1), 0.0)
    scene.loss[40:60, 40:80] = loss  # 20 pixels of path: 20 * loss dB
    grey = scan(scene).astype(float)
    below, beside = grey[70:110, 48:72].mean(), grey[70:110, 90:].mean()
    assert (below - beside) * 60 / 255 == pytest.approx(change, abs=1.0)


def test_curved_probe_sees_a_fan():
    seen = ultrasound.field_of_view((112, 112), curved=True)
    assert not seen[0, 0]
    assert seen[56, 56]
    assert not scan(even_scene((112, 112, 1), 0.0), curved=True)[~seen].any()


def test_mr_of_air_has_the_mean_of_rician_noise():
    image = magnetic.acquire(
        even_scene((64, 64, 4), 0.0),
        np.random.default_rng(0),
        gain=10000,
        gamma=1.0,
        bias=0.2,
        noise=0.05,
        kept=1.0,
    )
    # 10000 * 0.05 * sqrt(pi / 2) = 626.7
    assert image.mean() == pytest.approx(626.7, rel=0.02)


def test_ct_noise_grows_with_the_water_that_photons_cross():
    # of 96 pixels of 2 mm in a row 32 or 64 are water
    def noise(width):
        scene = even_scene((96, 96, 4), -1000.0)
        scene.level[48 - width // 2 : 48 + width // 2, 48 - width // 2 : 48 + width // 2] = 0.0
        image = tomography.acquire(
            scene, np.random.default_rng(0), pixel_mm=2.0, noise=20.0, blur=0.3, offset=5.0
        )
        middle = image[40:56, 40:56].astype(float)
        assert middle.mean() == pytest.approx(5.0, abs=1.5)
        return middle.std()

    # exp(0.02 * 64 / 2) = 1.90
    assert noise(64) / noise(32) == pytest.approx(1.90, rel=0.05)


def test_grain_is_the_size_of_detail():
    fine, coarse = (
        smooth_noise(np.random.default_rng(0), Grid((96, 96, 2)), grain) for grain in (1.5, 6.0)
    )
    assert coarse.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(coarse, axis=0)).mean() < 0.4 * np.abs(np.diff(fine, axis=0)).mean()


def test_refusals_say_what_to_do(tmp_path):
    wanted = {"site": "s", "modality": "US", "organ": "breast", "seed": 0}
    with pytest.raises(FlamesError, match="did you mean 'US breast'"):
        make_store(tmp_path / "a", **{**wanted, "organ": "breasts"})
    with pytest.raises(FlamesError, match="12 or more"):
        make_store(tmp_path / "a", **wanted, cases=3)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FlamesError, match="already there"):
        make_store(tmp_path, **wanted)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_command_lists_the_stores(tmp_path, capsys, monkeypatch):
    two = {site: HOSPITALS[site] for site in ("us-breast", "us-ovary")}  # the quick ones
    monkeypatch.setattr("flames.data.synthetic.stores.HOSPITALS", two)
    make(tmp_path / "made", seed=1, cases=12)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(two)
    assert "3 train, 2 val, 7 test" in lines[0]
