from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flames.data.normalise import intensity_window, looks_like_hu, normalise
from flames.data.store import Modality

IMAGES = arrays(np.int16, (5, 7), elements=st.integers(-2000, 4000))


def test_mr_leaves_the_background_out() -> None:
    volume = np.zeros((10, 10, 10))
    volume[:2] = np.arange(200).reshape(2, 10, 10) + 100
    low, high = intensity_window(volume, "MR")
    assert low == pytest.approx(100 + 0.01 * 199)
    assert high == pytest.approx(100 + 0.995 * 199)


def test_ultrasound_takes_all_pixels() -> None:
    image = np.zeros((10, 10))
    image[0] = 200
    assert intensity_window(image, "US") == (0, 200)


def test_ct_has_the_window_in_hu_and_its_own_otherwise() -> None:
    hu = np.array([-1000, -100, 40, 1200])
    assert intensity_window(hu, "CT") == (-200, 300)
    assert intensity_window(hu, "CT", (-100, 200)) == (-100, 200)
    assert looks_like_hu(hu)
    other = np.concatenate([np.zeros(900), np.arange(1001) + 1000])
    assert not looks_like_hu(other)
    assert intensity_window(other, "CT") == pytest.approx((1010, 1995))


@pytest.mark.parametrize("modality", ["US", "MR", "CT"])
@given(image=IMAGES)
def test_a_window_always_has_width_and_maps_into_range(modality: str, image: np.ndarray) -> None:
    low, high = intensity_window(image, modality)  # type: ignore[arg-type]
    assert low < high
    values = normalise(image, (low, high))
    assert values.dtype == np.float32
    assert values.min() >= -1
    assert values.max() <= 1


@given(image=IMAGES, scale=st.integers(1, 5), offset=st.integers(-50, 50))
def test_ultrasound_and_mr_do_not_depend_on_scale(
    image: np.ndarray, scale: int, offset: int
) -> None:
    other = image.astype(float) * scale + offset
    # One value, or a foreground of one value, has no scale to tell.
    if len(np.unique(image)) < 20:
        return
    for modality in ("US", "MR"):
        first = normalise(image, intensity_window(image, modality))  # type: ignore[arg-type]
        second = normalise(other, intensity_window(other, modality))  # type: ignore[arg-type]
        np.testing.assert_allclose(first, second, atol=1e-3)


def test_one_value_gets_a_window_of_one() -> None:
    assert intensity_window(np.full((3, 3), 7), "US") == (7, 8)
    assert intensity_window(np.zeros((3, 3)), "MR") == (0, 1)
    assert intensity_window(np.zeros((3, 3)), "CT") == (0, 1)


@pytest.mark.parametrize("modality", ["US", "MR", "CT"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
@given(data=st.data())
def test_counting_finds_the_window_that_sorting_finds(
    dtype: type, modality: Modality, data: st.DataObject
) -> None:
    levels = st.integers(0, 255) if dtype is np.uint8 else st.integers(0, 3000)
    image = data.draw(arrays(dtype, st.integers(1, 300), elements=levels))
    # Values in float64 are sorted, not counted.
    assert intensity_window(image, modality) == intensity_window(image.astype(np.float64), modality)


def test_counting_goes_on_over_pieces() -> None:
    image = np.random.default_rng(0).integers(-100, 3000, 200_000).astype(np.int16)
    assert intensity_window(image, "MR") == intensity_window(image.astype(np.float64), "MR")
