import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokenizers_vq.backbones.blocks import (
    AdaptiveGroupNorm,
    Downsample,
    GroupNorm,
    ResBlock,
    SpatialAttention,
    Upsample,
    depth_to_space,
    haar_patch,
    haar_unpatch,
    laid_out,
)
from tokenizers_vq.backbones.cnn2d import CNN2dDecoder, CNN2dEncoder
from tokenizers_vq.backbones.cnn2d_plan import conventions_of
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

IMAGE = SignalSpec("image")

# Parameters of the published generators: encoder, decoder and quantizer.
PUBLISHED = {
    "cnn2d_taming_f16": (72_141_699, 1024 * 256),
    "cnn2d_taming_f8": (68_995_971, 256 * 8192 + 8192 + 8192 * 256),  # Gumbel: logits, codes
    "cnn2d_llamagen_vq16": (71_883_403, 16384 * 8),
    "cnn2d_llamagen_vq8": (70_109_835, 16384 * 8),
    "cnn2d_ibq_f16": (110_982_019, 16384 * 256),
    "cnn2d_var_f16": (108_948_355, 4096 * 32 + 4 * (32 * 32 * 9 + 32)),  # codes, phi
    "cnn2d_open_magvit2_256": (115_127_829, 0),
    "cnn2d_open_magvit2_128": (112_021_653, 0),
    "cnn2d_open_magvit2_14bit": (115_094_033, 0),
    "cnn2d_wetok_ratio24": (448_405_827, 0),
    "cnn2d_wetok_ratio48": (447_881_507, 0),
    "cnn2d_wetok_ratio192": (460_294_179, 0),
    "cnn2d_wetok_ratio768": (1_673_678_883, 0),
    "cnn2d_vqgan_plus_10bit": (55_990_915, 1024 * 256),
    "cnn2d_simvq_f8": (65_199_491, 8192 * 128 + 128 * 128 + 128),
    "cnn2d_vqgan_plus_12bit": (55_007_683, 4096 * 64),
    "cnn2d_maskbit_f16": (54_479_247, 0),
    "cnn2d_maskgit_vqgan": (54_515_587, 1024 * 256),
    "cnn2d_kl16": (66_456_019, 32 * 16 + 16),  # what predicts the variance is the head's here
    "cnn2d_cosmos_di8": (79_004_342, 0),
    "cnn2d_cosmos_di16": (83_723_958, 0),
}
# The same for published models that are another option of a config above.
VARIANTS = {
    "var": (108_780_291, {"dim": 32, "width": 160, "conventions": {"latent_kernel": 3}}),
    **{
        f"maskbit_{bits}bit": (54_417_795 + 5_121 * bits, {"dim": bits, "family": "maskgit"})
        for bits in (10, 12, 14, 16, 18)
    },
}
# Positions of a picture of 256 x 256 pixels.
TOKENS = {
    "cnn2d_taming_f16": 256,
    "cnn2d_taming_f8": 1024,
    "cnn2d_llamagen_vq16": 256,
    "cnn2d_llamagen_vq8": 1024,
    "cnn2d_ibq_f16": 256,
    "cnn2d_open_magvit2_256": 256,
    "cnn2d_open_magvit2_128": 1024,
    "cnn2d_open_magvit2_14bit": 256,
    "cnn2d_wetok_ratio24": 1024,
    "cnn2d_wetok_ratio48": 1024,
    "cnn2d_wetok_ratio192": 256,
    "cnn2d_wetok_ratio768": 64,
    "cnn2d_simvq_f8": 1024,
    "cnn2d_vqgan_plus_10bit": 256,
    "cnn2d_vqgan_plus_12bit": 256,
    "cnn2d_maskbit_f16": 256,
    "cnn2d_maskgit_vqgan": 256,
    "cnn2d_kl16": 256,
    "cnn2d_cosmos_di8": 1024,
    "cnn2d_cosmos_di16": 256,
}
TINY = {"dim": 6, "signal": IMAGE, "width": 8, "channel_mult": (1, 2), "blocks": 1}


def from_config(name: str):
    config = read_config("backbone", name)
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    return tuple(build(part, config[part], **shared) for part in ("encoder", "decoder"))


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def first_line(error) -> str:
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    total, codebook = PUBLISHED[name]
    with torch.device("meta"):
        assert parameters(*from_config(name)) + codebook == total


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts_of_variants_are_the_published_ones(name):
    total, options = VARIANTS[name]
    with torch.device("meta"):
        pair = (CNN2dEncoder(signal=IMAGE, **options), CNN2dDecoder(signal=IMAGE, **options))
        assert parameters(*pair) == total


def test_position_counts_are_the_published_ones():
    with torch.device("meta"):
        grids = {name: from_config(name)[0].grid((256, 256)) for name in TOKENS}
    assert {name: grid[0] * grid[1] for name, grid in grids.items()} == TOKENS
    assert set(TOKENS) <= set(PUBLISHED)


@pytest.mark.parametrize("name", [n for n in config_names("backbone") if "cnn2d" in n])
def test_every_config_keeps_the_grid_law(name):
    with torch.device("meta"):
        encoder, decoder = from_config(name)
        height, width = (3 * step for step in encoder.stride)
        z = encoder(torch.empty(1, 3, height, width))
        assert z.shape == (1, *encoder.grid((height, width)), encoder.dim) == (1, 3, 3, decoder.dim)
        assert decoder(z).shape == (1, 3, height, width)
        assert encoder.stride == decoder.stride
    for factor in (8, 16, 32):
        if f"f{factor}" in name.split("_") or f"di{factor}" in name:
            assert encoder.stride == (factor, factor)


@pytest.mark.parametrize("family", ["taming", "magvit2", "maskgit"])
def test_a_one_position_grid_works(family):
    encoder = CNN2dEncoder(family=family, **TINY)
    decoder = CNN2dDecoder(family=family, **TINY)
    x_hat = decoder(encoder(torch.rand(1, 3, 2, 2)))
    assert x_hat.shape == (1, 3, 2, 2)
    assert x_hat.isfinite().all()


def test_tiny_models_are_small():
    for name in ("tiny_cnn2d", "tiny_cnn2d_magvit2", "tiny_cnn2d_maskgit"):
        assert parameters(*from_config(name)) <= 1_000_000
    assert 1_000_000 <= parameters(*from_config("mini_cnn2d_f16")) <= 1_500_000


def test_the_shortcut_reads_the_input_or_the_output():
    x = torch.randn(1, 2, 3, 3)
    for shortcut, expected in (("input", "x"), ("output", "h")):
        block = ResBlock(2, 4, bias=False, shortcut=shortcut, norm="none")
        h = block.conv2(nn.functional.silu(block.conv1(nn.functional.silu(x))))
        source = {"x": x, "h": h}[expected]
        weight = block.nin_shortcut.weight[:, :, 0, 0]
        projected = torch.einsum("oc,bchw->bohw", weight, source)
        torch.testing.assert_close(block(x), h + projected)


def test_an_unchanged_width_adds_the_input():
    block = ResBlock(4, 4, shortcut="output")
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(block(x), x)


def summing(how: str) -> Downsample:
    """A down-sampling whose outputs count the pixels under each kernel."""
    layer = Downsample(1, how)
    nn.init.ones_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    return layer


def test_down_sampling_pads_where_each_family_pads():
    four, five = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 5, 5)
    row = torch.ones(1, 1, 4, 4)
    # Even sizes: columns (0 1 2)(2 3 pad) at the end, (pad 0 1)(1 2 3) on both sides.
    assert summing("end")(row)[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]
    assert summing("same")(row)[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]
    assert summing("both")(row)[0, 0].tolist() == [[4.0, 6.0], [6.0, 9.0]]
    # Odd sizes: SAME pads both sides, columns (pad 0 1)(1 2 3)(3 4 pad).
    odd = [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    assert summing("same")(five)[0, 0].tolist() == odd
    # Each axis by itself: one row (odd), four columns (even).
    assert summing("same")(four)[0, 0].tolist() == [[3.0, 2.0]]


def test_average_pooling_has_no_parameters():
    layer = Downsample(1, "average")
    assert parameters(layer) == 0
    assert layer(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item() == 3.0


def test_depth_to_space_is_block_major():
    # Two channels: channel (2 a + b) * 2 + c goes to pixel (a, b) of channel c.
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert depth_to_space(x)[0].tolist() == [[[0.0, 2.0], [4.0, 6.0]], [[1.0, 3.0], [5.0, 7.0]]]


def test_nearest_up_sampling_repeats_pixels_before_the_convolution():
    layer = Upsample(1, "nearest")
    nn.init.dirac_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    up = layer(torch.tensor([[[[1.0, 2.0]]]]))
    assert up[0, 0].tolist() == [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]


def test_adaptive_norm_uses_the_unbiased_deviation_and_the_mean():
    layer = AdaptiveGroupNorm(2, 1, norm="none")
    with torch.no_grad():
        layer.gamma.weight.copy_(torch.tensor([[1.0], [2.0]]))
        layer.gamma.bias.zero_()
        layer.beta.weight.copy_(torch.tensor([[10.0], [0.0]]))
        layer.beta.bias.copy_(torch.tensor([0.0, 5.0]))
    z_q = torch.tensor([[[[1.0, 3.0]]]])  # mean 2, unbiased variance 2
    y = layer(torch.ones(1, 2, 1, 1), z_q)
    deviation = (2 + 1e-6) ** 0.5
    expected = torch.tensor([deviation + 20.0, 2 * deviation + 5.0])
    torch.testing.assert_close(y.flatten(), expected)


def test_adaptive_norm_of_one_position_is_finite():
    layer = AdaptiveGroupNorm(4, 3)
    assert layer(torch.randn(2, 4, 2, 2), torch.randn(2, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (48, 24), (17, 17), (37, 1), (8, 8)])
def test_group_norm_takes_any_width(channels, groups):
    norm = GroupNorm(channels)
    assert norm.num_groups == groups
    x = torch.randn(2, channels, 3, 3)
    expected = nn.functional.group_norm(x, groups, norm.weight, norm.bias, 1e-6)
    torch.testing.assert_close(norm(x), expected)
    assert norm(torch.randn(1, channels, 1, 1)).isfinite().all()


def test_attention_is_softmax_over_all_positions():
    layer = SpatialAttention(4)
    x = torch.randn(2, 4, 3, 5)
    n = layer.norm(x)
    q, k, v = (part(n).flatten(2) for part in (layer.q, layer.k, layer.v))  # (B, C, N)
    weights = torch.softmax(q.transpose(1, 2) @ k / 2, dim=-1)  # sqrt(4)
    expected = x + layer.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_attention_is_the_same_without_gradients_in_any_memory_order(memory):
    layer = SpatialAttention(8)
    x = torch.randn(2, 8, 3, 5).contiguous(memory_format=memory)
    before = x.clone()
    with torch.enable_grad():
        expected = layer(x)
    torch.testing.assert_close(layer(x), expected)
    assert torch.equal(x, before)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        self.count = max([self.count, *sizes])
        return made


@torch.no_grad()
def test_attention_keeps_no_matrix_of_all_positions_by_all():
    with Largest() as largest:
        SpatialAttention(8)(torch.randn(1, 8, 32, 32))
    assert largest.count == 8 * 32 * 32


def test_attention_sits_where_it_was_put():
    encoder = CNN2dEncoder(**TINY, conventions={"attention": [0]})
    assert [len(level.attn) for level in encoder.down] == [1, 0]
    decoder = CNN2dDecoder(**TINY)  # the coarsest level, one block more than the encoder
    assert [len(level.attn) for level in decoder.up] == [0, 2]


def test_haar_bands_come_in_order_and_invert():
    cell = torch.tensor([[[[1.0, 2.0], [3.0, 8.0]]]])
    # LL, LH (top minus bottom), HL (left minus right), HH
    assert haar_patch(cell, 2).flatten().tolist() == [3.5, -2.0, -1.5, 1.0]
    x = torch.randn(2, 3, 8, 16)
    for patch, channels in ((1, 3), (2, 12), (4, 48)):
        folded = haar_patch(x, patch)
        assert folded.shape == (2, channels, 8 // patch, 16 // patch)
        torch.testing.assert_close(haar_unpatch(folded, patch), x)
    colours = haar_patch(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2), 2)
    assert colours.flatten().tolist() == [1.0, 2.0, 3.0] + [0.0] * 9  # band after band


def test_fewer_strides_than_levels_are_fine_first_and_coarse_last():
    options = {**TINY, "channel_mult": (1, 1, 2), "patch": 2, "stride": 4}
    encoder, decoder = CNN2dEncoder(**options), CNN2dDecoder(**options)
    assert [level.resample is not None for level in encoder.down] == [True, False, False]
    assert [level.resample is not None for level in decoder.up] == [False, False, True]
    assert decoder(encoder(torch.randn(1, 3, 8, 8))).shape == (1, 3, 8, 8)


def test_a_family_that_works_in_0_to_1_converts_inside():
    outside = CNN2dEncoder(family="maskgit", **TINY)
    inside = CNN2dEncoder(
        family="maskgit", **{**TINY, "signal": SignalSpec("image", 3, (0.0, 1.0))}
    )
    inside.load_state_dict(outside.state_dict())
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(outside(x), inside((x + 1) / 2))
    back = CNN2dDecoder(family="maskgit", **TINY)
    unit = CNN2dDecoder(family="maskgit", **{**TINY, "signal": SignalSpec("image", 3, (0.0, 1.0))})
    unit.load_state_dict(back.state_dict())
    z_q = torch.randn(1, 4, 4, 6)
    torch.testing.assert_close(back(z_q), unit(z_q) * 2 - 1)


def test_wrong_pictures_are_named():
    encoder, decoder = CNN2dEncoder(**TINY), CNN2dDecoder(**TINY)
    with pytest.raises(ShapeError) as error:
        encoder(torch.zeros(1, 3, 9, 8))
    assert first_line(error) == (
        "CNN2dEncoder: expected sample axes in multiples of (2, 2); got (9, 8). "
        "Pad with functional.framing.pad_to_stride and crop what the decoder returns."
    )
    with pytest.raises(ShapeError) as error:
        encoder(torch.zeros(1, 8, 8, 3))
    assert first_line(error) == (
        "CNN2dEncoder: expected shape (B, 3, H, W); got (1, 8, 8, 3). Signals are channels first."
    )
    with pytest.raises(ShapeError) as error:
        decoder(torch.zeros(1, 6, 4, 4))
    assert first_line(error) == (
        "CNN2dDecoder: expected shape (B, h, w, 6); got (1, 6, 4, 4). "
        "Latents are channels last; did you forget to move them?"
    )


ERRORS = [
    (
        {"family": "vqgan"},
        "cnn2d family: there is no 'vqgan'; choose one of magvit2, maskgit, taming.",
    ),
    (
        {"conventions": {"down": "max"}},
        "cnn2d down: there is no 'max'; choose one of average, both, end, same.",
    ),
    (
        {"conventions": {"attention": "last"}},
        "cnn2d attention: expected a value of type list; got 'last'. Correct the backbone config.",
    ),
    (
        {"conventions": {"groups": "8"}},
        "cnn2d groups: expected a value of type int; got '8'. Correct the backbone config.",
    ),
    (
        {"conventions": {"attention": [2]}},
        "cnn2d: expected attention at levels -2..1; got (2,). Level 0 is the finest.",
    ),
    (
        {"stride": 12},
        "cnn2d: expected a patch that is a power of two, and a stride of patch times at most 2**2; "
        "got patch 1, stride 12. Choose a power of two, or add a level to channel_mult.",
    ),
    (
        {"patch": 3},
        "cnn2d: expected a patch that is a power of two, and a stride of patch times at most 2**2; "
        "got patch 3, stride 6. Choose a power of two, or add a level to channel_mult.",
    ),
    (
        {"family": "magvit2", "z_channels": 4},
        "cnn2d: expected z_channels 6, the latent width, because these conventions have no latent "
        "convolution; got 4. Leave z_channels out.",
    ),
    (
        {"blocks": 0},
        "cnn2d: expected levels, widths and blocks of at least 1; got widths (8, 16) and 0 blocks. "
        "Correct the backbone config.",
    ),
    (
        {"dim": 0},
        "CNN2dEncoder: expected dim and stride of at least 1; got dim 0, stride (2, 2). "
        "Correct the backbone config.",
    ),
    (
        {"signal": SignalSpec("audio", 1)},
        "CNN2dEncoder: expected a signal with 2 sample axes; got 'audio' with 1. "
        "Choose a backbone for that kind.",
    ),
]


@pytest.mark.parametrize(("options", "message"), ERRORS, ids=lambda value: str(value)[:30])
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError) as error:
        CNN2dEncoder(**{**TINY, **options})
    assert first_line(error) == message


def test_a_misspelt_convention_lists_the_real_ones():
    with pytest.raises(ConfigError) as error:
        conventions_of("taming", {"atention": []})
    assert first_line(error) == (
        "cnn2d family 'taming' has no option 'atention'; it takes adaptive, attention, bias, "
        "decoder_blocks, down, groups, highway, latent_kernel, mid, norm, out_kernel, shortcut, "
        "up, value_range. Did you mean 'attention'?"
    )


def test_a_highway_begins_as_an_affine_map():
    options = {**TINY, "family": "magvit2", "conventions": {"norm": "none", "adaptive": False}}
    a, b = torch.rand(2, 1, 3, 32, 32).unbind()
    for highway in (True, False):
        options["conventions"] = {**options["conventions"], "highway": highway}
        encoder, decoder = CNN2dEncoder(**options), CNN2dDecoder(**options)

        def both(x, encoder=encoder, decoder=decoder):
            return decoder(encoder(x))

        bend = (both(a + b) - both(a) - both(b) + both(torch.zeros_like(a))).abs().max()
        assert (bend < 1e-5) == highway


def test_memory_order_follows_positions_per_channel():
    x = torch.randn(2, 4, 8, 10)  # 80 positions, 20 for each channel
    assert laid_out(x).is_contiguous(memory_format=torch.channels_last)
    assert laid_out(x, channels=5).is_contiguous()
    assert laid_out(x, channels=16, enlarge=2).is_contiguous(memory_format=torch.channels_last)
    assert laid_out(x[:1].contiguous(memory_format=torch.channels_last), 5).is_contiguous()
    assert torch.equal(laid_out(x), x)


def test_cells_are_the_same_in_both_memory_orders():
    x = torch.arange(2 * 8 * 3 * 5.0).reshape(2, 8, 3, 5)
    expected = depth_to_space(x)
    assert expected[0, 1, 5, 3] == x[0, (2 * 1 + 1) * 2 + 1, 2, 1]  # row 2 * 2 + 1, column 2 + 1
    other = depth_to_space(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(other, expected)
    assert other.is_contiguous(memory_format=torch.channels_last)
