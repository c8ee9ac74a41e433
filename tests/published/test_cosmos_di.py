import pytest
import torch
from reference.published_checks import check_strictness, compare, message, picture
from reference.published_vqgan import Net, Shape, run_cosmos

from tokenizers_vq.errors import ConfigError

LEVELS = [8, 8, 8, 5, 5, 5]
SIZES = {  # patch, strides, levels with attention in the encoder and in the decoder
    "first": (4, 1, (), ()),
    "second": (2, 2, (0,), (1,)),
    "every_level_halves": (4, 3, (), ()),
}


def config(patch, downs, mult=(1, 2, 2)):
    return {
        "attn_resolutions": [32], "channels": 32, "channels_mult": list(mult), "dropout": 0.0,
        "in_channels": 3, "spatial_compression": patch * 2**downs, "num_res_blocks": 1,
        "out_channels": 3, "resolution": 1024, "patch_size": patch, "patch_method": "haar",
        "z_channels": 16, "z_factor": 1, "quantizer": "FSQ", "embedding_dim": 6, "levels": LEVELS,
        "num_quantizers": 4, "name": "DI", "encoder": "Default", "decoder": "Default",
    }  # fmt: skip


def make(patch, downs, down, up):
    shape = Shape(mult=(1, 2, 2), d=6, downs=downs, attended=down, attended_up=up,
                  channels=3 * patch**2)  # fmt: skip
    net, x = Net(), picture(2, 32, 64)
    made = run_cosmos(net, x, shape, LEVELS, {4: 2, 2: 1}[patch])
    return net.state, x, made


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_reference(size):
    state, x, made = make(*SIZES[size])
    given = config(*SIZES[size][:2])
    tok = compare("cosmos_di", state, given, x, made)
    assert tok.stride == (given["spatial_compression"],) * 2
    compare("cosmos_di", state, None, x, made)


def test_a_script_module_has_filters_and_levels_too():
    state, x, made = make(*SIZES["first"])
    script = {
        **state, "encoder.patcher.wavelets": torch.ones(2), "decoder.unpatcher._arange":
        torch.ones(2), "quantizer._levels": torch.ones(6), "inv_quant.quantizer._basis":
        torch.ones(6),
    }  # fmt: skip
    parts = ("encoder", "quant_conv", "quantizer")
    encoder = {key: value for key, value in script.items() if key.startswith(parts)}
    decoder = {key: value for key, value in script.items() if not key.startswith(parts)}
    compare("cosmos_di", {**encoder, **decoder}, None, x, made)


def test_other_files_are_named():
    state, _, _ = make(*SIZES["first"])
    check_strictness("cosmos_di", state, None, key="encoder.mid.block_1.conv1.bias",
                     shown="encoder.mid.0.conv1.bias")  # fmt: skip
    assert message("cosmos_di", state, {"quantizer": "VQ"}, ConfigError) == (
        "from_published('cosmos_di'): expected quantizer 'FSQ', that of the published files; got "
        "'VQ'. No other is known here."
    )
    assert message("cosmos_di", state, {**config(4, 1), "patch_size": 2}) == (
        "from_published('cosmos_di'): expected patch_size of 4, as the tensors have it; got 2 in "
        "config. Pass the constructor values of this checkpoint."
    )
    flat = {**state, "encoder.conv_in.weight": torch.zeros(32, 5, 3, 3)}
    assert message("cosmos_di", flat) == (
        "from_published('cosmos_di'): expected Haar cells of three colours in the first "
        "convolution; got 5 channels. Is it a checkpoint of another family?"
    )
