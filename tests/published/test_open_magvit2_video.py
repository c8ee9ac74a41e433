from types import SimpleNamespace

import pytest
import torch
from reference import magvit2_video as reference
from reference.cosmos_video import Tensors, digest
from reference.magvit2_video import Shape
from reference.published_checks import check_strictness, compare, message

from tokenizers_vq.published import from_published

CONFIG = {"ddconfig": {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 6}}


@torch.no_grad()
def make(mult, frames):
    shape, n = Shape(width=32, mult=mult, blocks=1, z=6), Tensors()
    torch.manual_seed(0)
    x = torch.rand(2, 3, frames, 8, 16) * 2 - 1
    z = reference.encode(n, x, shape)
    q = torch.where(z > 0, 1.0, -1.0)
    # the first channel is the lowest bit
    indices = ((z > 0).long() * 2 ** torch.arange(6)[:, None, None, None]).sum(1)[..., None]
    picture = reference.decode(n, q, shape)
    made = SimpleNamespace(indices=indices, latents=z, quantized=q, picture=picture)
    return n.state, x, made


@pytest.mark.parametrize(("mult", "frames"), [((1, 2), 3), ((1, 2, 2), 5), ((2, 2, 2), 5)])
def test_it_is_the_reference(mult, frames):
    state, x, made = make(mult, frames)
    tok = compare("open_magvit2_video", state, None, x, made)
    assert tok.stride == (2 ** sum(m != 1 for m in mult[:-1]), *[2 ** (len(mult) - 1)] * 2)


def test_the_published_file_fits_key_by_key():
    n = Tensors(device="meta")
    z = reference.encode(n, torch.zeros(1, 3, 5, 16, 16, device="meta"), Shape())
    reference.decode(n, z, Shape())
    # the 283 names and shapes of the published model
    assert (len(n.state), digest(n.state)) == (283, "fbf5e74677e25ae2")
    with torch.device("meta"):
        tok = from_published("open_magvit2_video", n.state)
    assert tok.stride == (4, 8, 8)
    assert tok.quantizer.codebook_sizes == (2**18,)


def test_other_files_are_named():
    state, _, _ = make((1, 2), 3)
    check_strictness("open_magvit2_video", state, CONFIG,
                     key="decoder.up.1.upsample.conv1.conv_1.bias",
                     shown="decoder.up.1.resample.conv.bias")  # fmt: skip
    assert message("open_magvit2_video", {"encoder.conv_in.weight": torch.zeros(1)}) == (
        "from_published('open_magvit2_video'): expected a checkpoint of this family; got one "
        "without 3D convolutions named conv_1 (family open_magvit2 is of pictures)."
    )
