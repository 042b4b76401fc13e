"""What arithmetic in bfloat16 must not break."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flames.models.precision import choose_precision

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="about the processor")


def _leave_nan_in_freed_memory():
    for size in (64, 256, 1024, 4096, 16384, 65536):
        [torch.full((size,), float("nan")) for _ in range(4)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_shallow_volumes_are_those_of_float32(depth, seed):
    torch.manual_seed(seed)
    plain = nn.Conv3d(8, 16, 3, padding=1)
    fast = nn.Conv3d(8, 16, 3, padding=1)
    fast.load_state_dict(plain.state_dict())
    precision = choose_precision("bfloat16")
    fast = precision.place(nn.Sequential(fast))[0]
    volume = torch.randn(2, 8, depth, 6, 6)
    wanted = plain(volume)
    pull = torch.randn_like(wanted)
    wanted.backward(pull)
    _leave_nan_in_freed_memory()
    with precision.autocast():
        found = fast(precision.move(volume))
    found.backward(pull.to(found.dtype))
    largest = float(plain.weight.grad.abs().max())
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=0, atol=0.03 * largest)


def test_a_placed_network_keeps_its_names():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 1))
    names = list(network.state_dict())
    assert list(choose_precision("bfloat16").place(network).state_dict()) == names
