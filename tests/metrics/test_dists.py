import pytest
import torch
from torch import nn

from tokenizers_vq.metrics.dists import DISTS, TAPS, Dists


def vgg_like() -> nn.Sequential:
    """The order of layers of VGG-16's features, with 4 channels."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    width = 3
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            layers += [nn.Conv2d(width, 4, 3, padding=1), nn.ReLU(inplace=True)]
            width = 4
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def by_the_peer(features: nn.Sequential, alpha, beta, x, y, monkeypatch) -> torch.Tensor:
    from torchmetrics.functional.image import dists

    class Full(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = features

    monkeypatch.setattr(dists, "vgg16", lambda weights: Full())
    pool = dists.L2pooling
    monkeypatch.setattr(dists, "L2pooling", lambda channels: pool(channels=4))
    network = dists.DISTSNetwork(load_weights=False)
    network.chns = [3, 4, 4, 4, 4, 4]
    network.alpha.data, network.beta.data = alpha.view(1, -1, 1, 1), beta.view(1, -1, 1, 1)
    with torch.no_grad():
        return network(x, y)


def test_it_equals_torchmetrics_on_the_same_network(monkeypatch):
    features = vgg_like()
    alpha, beta = torch.rand(23), torch.rand(23)
    x = torch.rand(2, 3, 32, 48)
    y = (x + 0.2 * torch.randn(x.shape)).clamp(0, 1)
    with torch.no_grad():
        ours = DISTS(features, alpha, beta)(x, y)
        same = DISTS(features, alpha, beta)(x, x)
    theirs = by_the_peer(features, alpha, beta, x, y, monkeypatch)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert same.abs().max() < 1e-5
    assert float(ours.min()) > 0.01
    assert len(features) == 31
    assert all(isinstance(features[k], nn.ReLU) for k in TAPS)


def test_without_the_weights_it_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    metric = Dists()
    metric.update(images, images)
    assert metric.compute()["dists"].reason == "weights vgg16 (397923af...) not found"


def test_rows_are_kept_per_image():
    metric = Dists()
    metric.reason, metric.network = "", DISTS(vgg_like(), torch.rand(23), torch.rand(23)).eval()
    images = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    metric.update(images, images)
    assert metric.rows()["dists"] == pytest.approx([0, 0, 0], abs=1e-5)
    assert metric.compute()["dists"].n == 3
