import pytest
import torch
from torch import nn

from tokenizers_vq.backbones.transformer import patchify, unpatchify
from tokenizers_vq.backbones.vit2d import ViT2dDecoder, ViT2dEncoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

IMAGE = SignalSpec("image")
TINY = {"dim": 6, "signal": IMAGE, "size": 16, "patch": 4, "width": 8, "layers": 1, "heads": 2}
# Parameters of the published models.
PUBLISHED = {
    "vit2d_bsq_256_b18": 174_816_210,
    "vit2d_bsq_256_b36": 174_843_876,
    "vit2d_bsq_128_b18": 173_636_562,
}


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    config = read_config("backbone", name)
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        pair = [build(part, config[part], **shared) for part in ("encoder", "decoder")]
    assert parameters(*pair) == PUBLISHED[name]


def test_the_leech_config_has_as_many_tokens_and_the_lattices_width():
    config = read_config("backbone", "vit2d_l24sq_256")
    assert config["dim"] == 24
    with torch.device("meta"):
        encoder = build("encoder", config["encoder"], dim=24, signal=IMAGE)
    assert encoder.grid((256, 256)) == (32, 32)


def test_squares_are_channel_row_column_and_come_back():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    rows = patchify(x, 2)
    assert rows.shape == (2, 2, 3, 12)
    assert rows[1, 1, 2].equal(x[1, :, 2:4, 4:6].flatten())
    assert unpatchify(rows, 2).equal(x)


@torch.no_grad()
def test_networks_of_another_range_convert():
    torch.manual_seed(0)
    plain, unit = ViT2dEncoder(**TINY), ViT2dEncoder(**TINY, value_range=(0.0, 1.0))
    unit.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(unit(2 * x - 1), plain(x))
    plain, unit = ViT2dDecoder(**TINY), ViT2dDecoder(**TINY, value_range=(0.0, 1.0))
    unit.load_state_dict(plain.state_dict())
    z = torch.randn(1, 4, 4, 6)
    torch.testing.assert_close(unit(z), 2 * plain(z) - 1)


def test_the_head_can_have_another_width():
    assert ViT2dDecoder(**TINY).head.out_features == 32
    assert ViT2dDecoder(**TINY, head_width=20).head.out_features == 20


def test_other_sizes_are_refused():
    with pytest.raises(ConfigError) as error:
        ViT2dEncoder(**{**TINY, "patch": 5})
    assert str(error.value) == (
        "vit2d: expected a size that is a multiple of the patch; got size 16, patch 5. "
        "Correct the backbone config."
    )
    with pytest.raises(ShapeError) as error:
        ViT2dDecoder(**TINY)(torch.zeros(1, 4, 5, 6))
    assert str(error.value) == (
        "ViT2dDecoder: expected a signal of (16, 16) samples; got (16, 20). "
        "Resize it: this backbone has learned positions for one size."
    )
