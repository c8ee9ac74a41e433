import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.hierarchical import CausalGridConv, Hierarchical
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.quantizers.vq import VectorQuantizer
from tokenizers_vq.tokenizer import Tokenizer

LEVELS = [[4, 2, 2], [2, 2, 1], [1, 1, 1]]


def make(strides=LEVELS, base=(9, 4, 4), **options):
    torch.manual_seed(0)
    inner = VectorQuantizer(3, codebook_size=16)
    return Hierarchical(3, inner=inner, strides=strides, base=base, **options).eval()


def nearest(head, rows):
    return torch.cdist(rows, head.inner[0].codebook).argmin(-1)


def test_codes_are_those_of_means_over_causal_cells():
    head = make([[4, 1, 1], [1, 1, 1]], phi=0)
    z = torch.randn(2, 7, 1, 2, 3)
    rest, book = z, head.inner[0].codebook
    means = torch.stack([z[:, 0], z[:, 1:5].mean(1), z[:, 5:].mean(1)], 1)
    slow = nearest(head, means)
    raised = book[slow][:, [0, 1, 1, 1, 1, 2, 2]]
    fast = nearest(head, rest - raised)
    out = head(z)
    assert torch.equal(out.indices[..., 0], torch.cat([slow.flatten(1), fast.flatten(1)], 1))
    torch.testing.assert_close(out.z_q, raised + book[fast])
    assert isinstance(head, MultiScale)  # whose prefixes a tokenizer decodes


def test_areas_are_averaged_and_brought_up_smoothly_frame_by_frame():
    head = make([[2, 2, 2]], phi=0)
    z = torch.randn(1, 3, 4, 6, 3)
    small = F.avg_pool2d(z[:, 0].movedim(-1, 1), 2)
    pair = F.avg_pool2d(z[:, 1:].mean(1).movedim(-1, 1), 2)
    codes = head.inner[0].codebook[nearest(head, torch.stack([small, pair], 1).movedim(2, -1))]
    large = [
        F.interpolate(c.movedim(-1, 1), size=(4, 6), mode="bilinear") for c in codes[0][:, None]
    ]
    expected = torch.cat([large[0], large[1], large[1]]).movedim(1, -1)[None]
    torch.testing.assert_close(head(z).z_q, expected)


@torch.no_grad()
@pytest.mark.parametrize("phi", [0, 3])
def test_what_happens_in_a_frame_changes_no_code_of_cells_before_it(phi):
    head = make(phi=phi)
    z, grid = torch.randn(1, 11, 4, 4, 3), (11, 4, 4)
    cell = head.cells(grid)
    before, whole = head.encode(z)[0, :, 0], head(z).z_q
    for frame in range(11):
        changed = z.clone()
        changed[:, frame:] = torch.randn(1, 11 - frame, 4, 4, 3)
        own = -(-frame // 4)  # cells are 0, 1-4, 5-8, 9-10
        same = before == head.encode(changed)[0, :, 0]
        assert same[cell < own].all()
        assert not same[cell >= own].all()
        first = 4 * own - 3  # frame of its cell
        assert torch.equal(head(changed).z_q[:, : max(first, 0)], whole[:, : max(first, 0)])


@torch.no_grad()
def test_a_longer_video_begins_with_the_codes_of_its_beginning():
    head = make(phi=1)
    z = torch.randn(1, 13, 4, 4, 3)
    whole = head.encode(z)[0]
    for frames in (1, 5, 9):
        part = head.encode(z[:, :frames])[0]
        early = head.cells((13, 4, 4)) <= (frames - 1) // 4
        assert torch.equal(whole[early], part)


@torch.no_grad()
def test_frames_of_a_whole_tokenizer_change_no_earlier_code():
    torch.manual_seed(0)
    config = read_config("backbone", "tiny_mamba_video")
    head = {**read_config("quantizer", "hitvideo"), "strides": [[2, 2, 2], [1, 1, 1]]}
    tok = Tokenizer.from_config({**config, "quantizer": head}).eval()
    x = torch.rand(1, 3, 17, 16, 16) * 2 - 1  # 5 latent frames: cells 0, 1-2, 3-4
    changed = x.clone()
    changed[:, :, 9:] = torch.rand(1, 3, 8, 16, 16) * 2 - 1  # the first frame of the last cell
    a, b = tok.encode(x), tok.encode(changed)
    early = tok.quantizer.cells((5, 2, 2)) < 2
    assert torch.equal(a.indices[:, early], b.indices[:, early])
    assert not torch.equal(a.indices, b.indices)
    assert tok.decode(a, num_codebooks=1).shape == x.shape  # the slow level alone


def test_every_number_of_frames_rows_and_columns_has_codes():
    head = make()
    for grid in [(1, 1, 1), (2, 3, 5), (3, 4, 4), (6, 1, 2), (12, 5, 3)]:
        z = torch.randn(1, *grid, 3)
        codes = head.encode(z)
        assert codes.shape[1] == head.token_count(grid) == len(head.cells(grid))
        torch.testing.assert_close(head.decode(codes, grid), head(z).z_q)
    assert head.scale_grids((12, 5, 3)) == [(4, 3, 2), (7, 3, 3), (12, 5, 3)]


def test_dropped_levels_are_missing_and_prefixes_decode():
    head = make(scale_dropout=1.0, phi=1).train()
    head.generator = torch.Generator().manual_seed(1)
    z = torch.randn(32, 5, 2, 2, 3)
    out, grid = head(z), (5, 2, 2)
    slow = head._counts(grid)[0]
    assert (out.indices[:, :slow] >= 0).all()
    alone = (out.indices[:, slow:] < 0).flatten(1).all(1)
    assert 0 < alone.sum() < 32
    torch.testing.assert_close(head.decode(out.indices, grid), out.z_q)
    prefix = head.prefix(out.indices, 1, grid)
    torch.testing.assert_close(head.decode(prefix, grid)[alone], out.z_q[alone])


def test_the_causal_convolution_by_hand():
    conv = CausalGridConv(2, 3)
    x = torch.randn(1, 2, 4, 3, 3)
    led = F.pad(x, (1, 1, 1, 1, 2, 0))
    torch.testing.assert_close(conv(x), F.conv3d(led, conv.weight, conv.bias))


def message(call):
    with pytest.raises((ConfigError, ShapeError)) as error:
        call()
    return str(error.value)


def test_mistakes_are_named():
    assert message(lambda: make([[4, 2, 2], [3, 1, 1]])) == (
        "Hierarchical: expected strides of which each divides those of the level before; got "
        "[[4, 2, 2], [3, 1, 1]]. List them from coarse to fine, e.g. "
        "[[4, 4, 4], [2, 2, 2], [1, 1, 1]]."
    )
    assert message(lambda: make(base=[5, 8])) == (
        "Hierarchical: expected a base of frames, rows and columns of at least 1; got [5, 8]. "
        "Give three, e.g. [5, 8, 8]."
    )
    assert message(lambda: make().decode(torch.zeros(1, 7, 1, dtype=torch.int64))) == (
        "Hierarchical: expected 196 tokens, those of latents on (9, 4, 4); got (7,). Say which "
        "grid the latents have: decode(indices, grid)."
    )


def test_fixed_codes_fit_too():
    head = Hierarchical(
        inner=FSQ(3, levels=[4, 4, 4]), strides=[[2, 2, 2], [1, 1, 1]], base=[3, 2, 2]
    )
    assert head.dim == 3
    assert head(torch.randn(1, 3, 2, 2, 3)).indices.shape == (1, 14, 1)
