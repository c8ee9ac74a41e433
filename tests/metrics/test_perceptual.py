import hashlib

import pytest
import torch

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.metrics import extractors, perceptual, weights
from tokenizers_vq.metrics.perceptual import Perceptual
from tokenizers_vq.metrics.weights import WeightsFile, find_weights, parse_weights


def images(n: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture
def empty_machine(monkeypatch, tmp_path):
    """A machine without weights: an empty torch.hub cache and no package that carries any."""
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for key, file in weights.WEIGHTS.items():
        monkeypatch.setitem(weights.WEIGHTS, key, WeightsFile(file.names, file.sha256))
    extractors._built.cache_clear()
    yield tmp_path
    extractors._built.cache_clear()


def test_without_weights_everything_is_skipped_with_its_reason(empty_machine):
    metric = Perceptual()
    metric.update(images(1), images(1))
    reasons = {name: score.reason for name, score in metric.compute().items()}
    assert reasons == {
        "lpips-alex": "weights alexnet-owt (7be5be79...) not found",
        "lpips-vgg": "weights vgg16 (397923af...) not found",
        "cos-EffLite0": "weights efficientnet-lite0 (57934424...) not found",
        "keep-EffLite0": "weights efficientnet-lite0 (57934424...) not found",
    }


def test_lpips_equals_torchmetrics_on_the_same_backbone(empty_machine, monkeypatch):
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    torch.manual_seed(0)
    network = alexnet(weights=None)
    path = empty_machine / "alexnet-owt-7be5be79.pth"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, "alexnet-owt", WeightsFile((path.name,), digest[:8]))
    reference = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    for slice_name, layers in reference.net.named_children():
        assert slice_name.startswith("slice")
        for number, layer in layers.named_children():
            layer.load_state_dict(network.features[int(number)].state_dict())
    real, fake = images(2), images(2, seed=1)
    metric = Perceptual(("lpips-alex",), resamples=0)
    metric.update(real, fake)
    with torch.no_grad():
        wanted = reference(real / 127.5 - 1, fake / 127.5 - 1).flatten()
    assert metric.rows()["lpips-alex"] == pytest.approx(wanted.tolist(), rel=1e-4)
    assert perceptual.lpips("alex").forward(real / 127.5 - 1, real / 127.5 - 1).abs().max() == 0


class Channels:
    """A tiny extractor with known features."""

    id = "channels"
    dim = 3

    def __call__(self, x):
        pooled = x.float().mean((2, 3))
        return extractors.Features(pooled, pooled)


def test_cosine_and_kept_label_from_known_features(monkeypatch):
    extractors._built.cache_clear()
    monkeypatch.setitem(extractors.EXTRACTORS, "efflite0", lambda given: Channels())
    real = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    real[:, 0] = 200
    fake = real.clone()
    fake[1, 0], fake[1, 1] = 0, 200
    metric = Perceptual(("cos-EffLite0", "keep-EffLite0"), resamples=0)
    metric.update(real, fake)
    extractors._built.cache_clear()
    assert metric.rows() == {"cos-EffLite0": [1.0, 0.0], "keep-EffLite0": [1.0, 0.0]}
    assert metric.compute()["keep-EffLite0"].value == 0.5


def test_a_file_with_another_hash_is_an_error(empty_machine):
    path = empty_machine / "vgg16-397923af.pth"
    path.write_bytes(b"not the weights")
    with pytest.raises(CheckpointError) as error:
        find_weights("vgg16")
    digest = hashlib.sha256(b"not the weights").hexdigest()[:8]
    assert str(error.value) == (
        f"weights vgg16: expected a file whose sha256 starts with 397923af; got {digest} in "
        f"'{path}'. Give the published file."
    )


def test_a_given_file_that_is_not_there_is_an_error():
    with pytest.raises(CheckpointError) as error:
        find_weights("vgg16", {"vgg16": "nowhere.pth"})
    assert str(error.value) == (
        "weights vgg16: expected a file; got 'nowhere.pth'. Check the path after 'vgg16='."
    )


def test_weights_words_are_parsed():
    assert parse_weights(["vgg16=a=b.pth"]) == {"vgg16": "a=b.pth"}
    with pytest.raises(ConfigError) as error:
        parse_weights(["vgg16"])
    assert str(error.value) == ("weights: expected KEY=FILE; got 'vgg16'. Put a '=' between them.")
    with pytest.raises(ConfigError) as error:
        parse_weights(["vgg=a"])
    assert str(error.value).startswith("weights: there is no 'vgg'; choose one of alexnet-owt, ")
