from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from flames.data.duplicates import duplicate_groups, join, signature, similar_pairs


def scan(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Return smooth texture, brighter above, as an ultrasound image is."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 4)
    values = noise / noise.std() * 35 + np.linspace(160, 40, size[0])[:, None]
    return np.clip(values, 0, 255).astype(np.uint8)


def changed(image: np.ndarray, how: str) -> np.ndarray:
    if how == "mirrored":
        return image[:, ::-1]
    if how == "smaller":
        return np.asarray(Image.fromarray(image).resize((100, 75)))
    if how == "brighter":
        return np.clip(image * 1.2 + 20, 0, 255).astype(np.uint8)
    if how == "noisy":
        noise = np.random.default_rng(0).normal(0, 12, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return image[2:-2, 3:-3]


@pytest.mark.parametrize("how", ["mirrored", "smaller", "brighter", "noisy", "cropped"])
def test_a_changed_copy_is_in_the_group(how: str) -> None:
    images = {f"scan-{i}": scan(i) for i in range(20)}
    images["copy"] = changed(images["scan-7"], how)
    groups = duplicate_groups({name: signature(image) for name, image in images.items()})
    assert groups["scan-7"] == groups["copy"] == "copy"
    assert len(set(groups.values())) == 20


def test_signatures_by_hand() -> None:
    one = signature(scan(1))
    assert float((one**2).sum()) == pytest.approx(1, abs=1e-5)
    assert float(one.mean()) == pytest.approx(0, abs=1e-6)
    assert not signature(np.full((50, 60), 9)).any()


def test_blank_pictures_are_not_duplicates() -> None:
    groups = duplicate_groups(dict.fromkeys("ab", signature(np.zeros((9, 9)))))
    assert groups == {"a": "a", "b": "b"}
    assert duplicate_groups({}) == {}


def test_likeness_carries_over() -> None:
    assert join(6, [(5, 3), (0, 5), (2, 1)]) == [0, 1, 1, 0, 4, 0]


def test_a_thousand_pictures_take_a_moment() -> None:
    rng = np.random.default_rng(0)
    signatures = rng.normal(size=(1200, 32, 32)).astype(np.float32)
    start = time.perf_counter()
    assert similar_pairs(signatures / 32) == []
    assert time.perf_counter() - start < 5
    signatures[1150] = signatures[3]  # of different blocks
    signatures /= np.linalg.norm(signatures, axis=(1, 2), keepdims=True)
    assert [(i, j) for i, j, _ in similar_pairs(signatures)] == [(3, 1150)]
