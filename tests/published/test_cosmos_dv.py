from types import SimpleNamespace

import pytest
import torch
from reference import cosmos_video as reference
from reference.cosmos_video import Shape, Tensors, digest
from reference.published_checks import check_strictness, compare, message

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published
from tokenizers_vq.quantizers.fsq import FSQ

LEVELS = [8, 8, 8, 5, 5, 5]
NONE, SPACE, BOTH = (0, 0), (1, 0), (1, 1)
SCHEDULES = {  # frames, rows per latent; what levels halve; what they double, the coarsest first
    "4x8x8": ((4, 8), (SPACE, NONE), (SPACE, NONE)),
    "8x8x8": ((8, 8), (BOTH, NONE), (NONE, BOTH)),
    "8x16x16": ((8, 16), (BOTH, SPACE), (SPACE, BOTH)),
}


def small(name, patch=2):
    (time, space), down, up = SCHEDULES[name]
    shape = Shape(width=8, mult=(1, 2, 2), blocks=1, z=8, patch=patch, down=down, up=up)
    stride = (time * patch // 4, space * patch // 4)
    return shape, {"temporal_compression": stride[0], "spatial_compression": stride[1]}


def video(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 9, 16, 16, generator=generator) * 2 - 1


@torch.no_grad()
def make(name):
    shape, config = small(name)
    n, x = Tensors(), video()
    torch.manual_seed(0)
    z = reference.encode(n, x, shape)
    head = FSQ(levels=LEVELS).eval()
    rows = z.movedim(1, -1)
    q = head(rows)
    picture = reference.decode(n, q.z_q.movedim(-1, 1), shape)
    made = SimpleNamespace(
        indices=q.indices, latents=z, quantized=q.z_q.movedim(-1, 1), picture=picture
    )
    return n.state, config, x, made


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_is_the_reference(name):
    state, config, x, made = make(name)
    tok = compare("cosmos_dv", state, config, x, made)
    assert tok.stride == (config["temporal_compression"], *[config["spatial_compression"]] * 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_published_files_fit_key_by_key(name):
    (time, space), down, up = SCHEDULES[name]
    shape, n = Shape(down=down, up=up), Tensors(device="meta")
    reference.encode(n, torch.zeros(1, 3, 1, 32, 32, device="meta"), shape)
    reference.decode(n, torch.zeros(1, 6, 1, 2, 2, device="meta"), shape)
    # the 322 names and shapes of the published model, the same for all three
    assert (len(n.state), digest(n.state)) == (322, "0827294445bfc626")
    with torch.device("meta"):
        tok = from_published(
            "cosmos_dv", n.state, {"temporal_compression": time, "spatial_compression": space}
        )
    assert tok.stride == (time, space, space)
    assert tok.quantizer.codebook_sizes == (64000,)


def test_other_files_are_named():
    state, config, _, _ = make("4x8x8")
    check_strictness("cosmos_dv", state, config, key="encoder.mid.block_1.conv1.0.conv3d.bias",
                     shown="encoder.mid.0.conv1.0.bias")  # fmt: skip
    assert message("cosmos_dv", state, None, ConfigError) == (
        "from_published('cosmos_dv'): expected the constructor value 'temporal_compression'; got "
        "[]. The weights alone do not determine it: pass it in config."
    )
    assert message("cosmos_dv", state, {**config, "patch_method": "rearrange"}, ConfigError) == (
        "from_published('cosmos_dv'): expected patch_method 'haar', that of the published files; "
        "got 'rearrange'. No other is known here."
    )
    flat = {**state, "encoder.conv_in.0.conv3d.weight": torch.zeros(8, 5, 1, 3, 3)}
    assert message("cosmos_dv", flat, config) == (
        "from_published('cosmos_dv'): expected Haar cells of three colours in the first "
        "convolution; got 5 channels. Is it a checkpoint of another family?"
    )
