"""LPIPS is there with real weights, and off without them, never random."""

import hashlib
import logging
import warnings

import lpips
import pytest
import torch
from torch import nn

from tokenizers_vq.errors import CheckpointError, ConfigError, ShapeError
from tokenizers_vq.losses import perceptual
from tokenizers_vq.losses.perceptual import LPIPS, load_lpips


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("TVQ_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Torchvision's alexnet layers with random numbers, under a name that carries no digest."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    }
    state = {}
    for layer, (out, inputs, side) in shapes.items():
        weight = torch.randn(out, inputs, side, side, generator=generator)
        state[f"features.{layer}.weight"] = weight * (2 / (inputs * side * side)) ** 0.5
        state[f"features.{layer}.bias"] = torch.zeros(out)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(state, path)
    return path


def test_without_weights_the_term_is_off_with_one_line(caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        assert load_lpips() is None
    assert [record.getMessage() for record in caplog.records] == [
        f"LPIPS is off: no vgg16-397923af.pth in {tmp_path}/hub/checkpoints. "
        "Put torchvision's file there, or set TVQ_WEIGHTS to it."
    ]


def test_weights_are_found_and_used(weights):
    loss = load_lpips("alex", weights)
    x, y = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert loss(x, x).item() == 0
    assert loss(x, y).item() > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by its old arguments
        reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load(weights, weights_only=True)
    for name, value in reference.net.state_dict().items():
        value.copy_(state["features." + name.partition(".")[2]])
    assert loss(x, y).item() == pytest.approx(reference(x, y).mean().item(), rel=1e-5)


def test_only_the_reconstruction_gets_a_gradient(weights):
    loss = load_lpips("alex", weights)
    x_hat = (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    loss(torch.zeros(1, 3, 64, 64), x_hat).backward()
    assert x_hat.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss._network.parameters())


def test_a_file_in_the_hub_cache_or_in_tvq_weights_is_checked_by_its_name(
    monkeypatch, tmp_path, weights
):
    digits = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    named = tmp_path / f"alexnet-owt-{digits}.pth"
    named.write_bytes(weights.read_bytes())
    monkeypatch.setitem(perceptual.FILES, "alex", named.name)
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    assert isinstance(load_lpips("alex"), LPIPS)
    named.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(
        CheckpointError, match=f"^LPIPS: expected a sha256 that begins with {digits};"
    ):
        load_lpips("alex")


def test_a_path_without_weights_is_an_error(tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_lpips("vgg", tmp_path)
    assert str(error.value) == (
        f"LPIPS: expected vgg16-397923af.pth at {tmp_path}; there is none. "
        "Correct the path, or leave it out to search the torch.hub cache."
    )


def test_weights_of_another_network_are_an_error(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"^LPIPS: expected torchvision's weights of alex; got"
    ):
        load_lpips("alex", tmp_path / "x.pth")


def test_another_net_is_refused():
    with pytest.raises(ConfigError) as error:
        load_lpips("squeeze")
    assert str(error.value) == "LPIPS: there is no net 'squeeze'; choose one of vgg, alex."


class Mean(nn.Module):
    """A network with a parameter that compares channel means."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, y):
        return (x - y).mean((1, 2, 3)) * self.weight


def test_frames_of_a_video_are_images():
    x = torch.zeros(2, 3, 4, 32, 32)
    y = x.clone()
    y[0, :, 1] = 8.0  # one of eight frames
    assert LPIPS(Mean())(y, x).item() == pytest.approx(1.0)


def test_images_too_small_are_refused():
    with pytest.raises(ShapeError) as error:
        LPIPS(Mean())(torch.zeros(1, 3, 16, 64), torch.zeros(1, 3, 16, 64))
    assert str(error.value) == (
        "LPIPS: expected images of 1 or 3 channels and at least 32 x 32; "
        "got (1, 3, 16, 64). Take perceptual/lpips out of the weights."
    )
