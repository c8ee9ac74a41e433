"""A frozen ViT from a file, heads on its features, and one sentence where the file is not."""

import pytest
import timm
import torch

from tokenizers_vq.discriminators.dino import Dino, LocalBatchNorm
from tokenizers_vq.errors import CheckpointError, ConfigError

MODEL = "test_vit"  # the smallest of timm


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dino") / "vit.pth"
    torch.save(timm.create_model(MODEL, pretrained=False, num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def critic(weights):
    return Dino(weights=weights, model=MODEL, depths=(0, 2), kernel=3)


def test_every_head_judges_every_position(critic):
    vit = critic._vit[0]
    positions = vit.patch_embed.num_patches
    assert critic(torch.rand(2, 3, 64, 48)).shape == (2, 1, 3 * positions)


def test_features_are_patches_plus_the_class_token(critic):
    x = torch.rand(1, 3, critic.side, critic.side) * 2 - 1
    vit, found = critic._vit[0], critic.features(x)
    seen = []
    hook = vit.blocks[2].register_forward_hook(lambda *args: seen.append(args[-1]))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    vit.forward_features((x / 2 + 0.5 - mean) / std)
    hook.remove()
    wanted = (seen[0][:, 1:] + seen[0][:, :1]).transpose(1, 2)
    torch.testing.assert_close(found[2], wanted)


def test_only_the_heads_train_and_gradients_reach_the_image(critic):
    names = {name.partition(".")[0] for name in critic.state_dict()}
    assert names == {"heads"}
    x = torch.rand(2, 3, critic.side, critic.side, requires_grad=True)
    critic(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic._vit[0].parameters())


def test_large_images_are_cropped_in_training(critic):
    x = torch.arange(400.0).view(1, 1, 1, -1).expand(1, 3, 400, 400)
    critic.crop_share = 1.0
    assert critic.train()._sized(x)[0, 0, 0].diff().unique().tolist() == [1.0]
    assert critic.eval()._sized(x)[0, 0, 0].diff().mean() > 2


def test_normalisation_is_over_groups_of_at_most_eight():
    x = torch.cat([torch.randn(8, 2, 5), 100 + torch.randn(8, 2, 5)])
    out = LocalBatchNorm(2)(x)
    torch.testing.assert_close(out[:8].mean((0, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out[8:].var((0, 2), unbiased=False), torch.ones(2), rtol=1e-3, atol=0
    )


def test_without_weights_there_is_no_discriminator(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("TVQ_WEIGHTS", raising=False)
    with pytest.raises(CheckpointError) as error:
        Dino()
    assert str(error.value) == (
        f"Dino: expected dino_deitsmall16_pretrain.pth in {tmp_path}/checkpoints; there is none. "
        "Put DINO's file there, set TVQ_WEIGHTS to it, or choose another discriminator."
    )


def test_other_weights_and_options_are_refused(weights, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"^Dino: expected the weights of test_vit; got othe"):
        Dino(weights=tmp_path / "other.pth", model=MODEL)
    with pytest.raises(
        ConfigError, match=r"^Dino: expected 3 channels, an odd kernel and depths o"
    ):
        Dino(weights=weights, model=MODEL, depths=(99,))
