import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.metrics.transformers_2d import RECIPES, Recipe, Vit

KEY = "dinov2-vitl14"  # any key whose hash is not fixed
TINY = Recipe(KEY, "test_vit", 64, 0, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=64).eval()


def test_features_are_those_of_the_network_on_normalised_pictures(network, tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(network.state_dict(), path)
    it = Vit(TINY, {KEY: str(path)})
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    x = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        expected = network(x)
    got = it(images)
    torch.testing.assert_close(got.pooled, expected, rtol=1e-4, atol=1e-5)
    assert got.logits.shape == (2, 0)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert it.id == f"test_vit-{digest}/bicubic-64"
    assert it.dim == expected.shape[1]


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError) as error:
        Vit(TINY, {KEY: str(path)})
    text = str(error.value)
    assert text.startswith(f"weights {KEY}: expected timm's test_vit in '{path}'; got another file")
    assert text.endswith("Give timm's file.")


@pytest.mark.parametrize("name", RECIPES)
def test_timm_has_the_networks(name):
    assert timm.is_model(RECIPES[name].model)
