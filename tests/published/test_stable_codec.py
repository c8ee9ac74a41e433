"""stable-codec: keys of both variants, the order of the gate, levels chosen after training."""

import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published.importing import from_published

WIDTH, PATCH, DIM = 128, 8, 6
PUBLISHED = {
    "model": {
        "encoder": {"type": "taae", "config": {"sliding_window": [3, 4]}},
        "bottleneck": {"type": "dithered_fsq", "config": {"levels": 17, "dim": DIM}},
        "pretransform": {"type": "patched", "config": {"patch_size": PATCH}},
    },
    "sample_rate": 16000,
}


def normalised(key, *shape, bias=True):
    found = {f"{key}.weight_v": torch.randn(shape), f"{key}.weight_g": torch.ones(shape[0], 1, 1)}
    return found | ({f"{key}.bias": 0.1 * torch.randn(shape[0])} if bias else {})


def layer(key):
    inner = {"pre_norm.gamma": 1, "ff_norm.gamma": 1, "pre_norm.beta": 0, "ff_norm.beta": 0}
    found = {key + name: torch.full((WIDTH,), float(value)) for name, value in inner.items()}
    found[key + "self_attn.to_qkv.weight"] = torch.randn(3 * WIDTH, WIDTH) / 11
    found[key + "self_attn.to_out.weight"] = torch.randn(WIDTH, WIDTH) / 11
    for part in ("q_norm", "k_norm"):
        found[f"{key}self_attn.{part}.weight"] = torch.rand(128)
        found[f"{key}self_attn.{part}.bias"] = torch.rand(128)
    for part in ("self_attn_scale", "ff_scale"):
        found[f"{key}{part}.scale"] = torch.rand(WIDTH)
    found[key + "ff.ff.0.proj.weight"] = torch.randn(8 * WIDTH, WIDTH) / 11
    found[key + "ff.ff.0.proj.bias"] = torch.randn(8 * WIDTH)
    found[key + "ff.ff.2.weight"] = torch.randn(WIDTH, 4 * WIDTH) / 22
    found[key + "ff.ff.2.bias"] = torch.randn(WIDTH)
    return found | {key + "rope.inv_freq": 10000.0 ** -(torch.arange(0, 64, 2) / 64)}


def periodic(key):
    return {f"{key}.alpha": torch.rand(WIDTH), f"{key}.beta": torch.rand(WIDTH)}


def units(key, first):
    found = {}
    for i in range(first, first + 3):
        found |= periodic(f"{key}{i}.layers.0") | periodic(f"{key}{i}.layers.2")
        found |= normalised(f"{key}{i}.layers.1", WIDTH, WIDTH, 7)
        found |= normalised(f"{key}{i}.layers.3", WIDTH, WIDTH, 1)
    return found


def state(snake=False):
    torch.manual_seed(0)
    down, block = 4 if snake else 1, "encoder.layers.1.layers."
    found = normalised("encoder.layers.0", WIDTH, PATCH, 7)
    found |= normalised(f"{block}{down}", WIDTH, WIDTH, 4) | layer(f"{block}{down + 1}.1.")
    found |= normalised("encoder.layers.3", DIM, WIDTH, 3)
    found |= normalised("decoder.layers.0", WIDTH, DIM, 3)
    other = "decoder.layers.1.layers."
    found |= layer(f"{other}0.1.") | normalised(f"{other}2", WIDTH, WIDTH, 4)
    found |= normalised("decoder.layers.3", PATCH, WIDTH, 7, bias=False)
    if snake:
        found |= periodic("encoder.layers.2") | periodic("decoder.layers.2")
        found |= units(block, 0) | periodic(f"{block}3")
        found |= units(other, 3) | periodic(f"{other}1")
    return found


@pytest.mark.parametrize("snake", [False, True], ids=["plain", "snake"])
@torch.no_grad()
def test_every_key_of_either_variant_has_a_place(snake):
    file = {f"autoencoder.{key}": value for key, value in state(snake).items()}
    file["discriminator.weight"] = torch.zeros(1)
    tokenizer = from_published("stable_codec", {"state_dict": file}, PUBLISHED)
    assert tokenizer.encoder.layers[1][-1].layers[0].attn.past == 3
    x = torch.rand(1, 1, 50) - 0.5
    codes = tokenizer.encode(x)
    assert codes.indices.shape == (1, 4, 1)
    assert tokenizer.decode(codes).shape == x.shape


@torch.no_grad()
def test_the_second_half_is_the_gate():
    weights = state()
    tokenizer = from_published("stable_codec", weights, PUBLISHED)
    key = "decoder.layers.1.layers.0.1.ff.ff."
    x = torch.randn(5, WIDTH)
    proj = F.linear(x, weights[key + "0.proj.weight"], weights[key + "0.proj.bias"])
    value, gate = proj.chunk(2, dim=-1)
    expected = F.linear(value * F.silu(gate), weights[key + "2.weight"], weights[key + "2.bias"])
    mlp = tokenizer.decoder.layers[1][0].layers[0].mlp
    torch.testing.assert_close(mlp(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_two_stages_of_five_levels_are_the_levels_of_training():
    z = 2 * torch.randn(1, 200, DIM)
    trained = from_published("stable_codec", state(), PUBLISHED).quantizer
    chosen = {**PUBLISHED, "posthoc_bottleneck": "2x15625_700bps"}
    stack = from_published("stable_codec", state(), chosen).quantizer
    assert stack.codebook_sizes == (15625, 15625)
    torch.testing.assert_close(stack(z).z_q, trained(z).z_q)


def test_other_presets_and_families_are_refused():
    with pytest.raises(ConfigError, match="1x46656_400bps"):
        from_published("stable_codec", state(), {**PUBLISHED, "posthoc_bottleneck": "1x46656"})
    with pytest.raises(CheckpointError) as caught:
        from_published("stable_codec", {"encoder.layers.0.bias": torch.zeros(1)})
    assert str(caught.value) == (
        "from_published('stable_codec'): expected a checkpoint of this family; got one without "
        "transformer layers."
    )
