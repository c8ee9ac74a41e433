import pytest
import torch
from golden import close, with_codes

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.folded import Folded
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer


def vq(width, size=8, **options):
    return VectorQuantizer(width, codebook_size=size, **options)


def message(call, kind=ConfigError):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def test_golden_patches_are_row_major():
    z = torch.arange(16.0).reshape(1, 4, 4, 1)
    inner = with_codes(vq(4, 2), [[0.0, 1.0, 4.0, 5.0], [10.0, 11.0, 14.0, 15.0]])
    head = Folded(1, inner=inner)
    out = head(z)
    assert out.indices[0, :, :, 0].tolist() == [[0, 0], [1, 1]]
    assert out.z_q[0, :, :, 0].tolist() == [
        [0.0, 1.0, 0.0, 1.0], [4.0, 5.0, 4.0, 5.0], [10.0, 11.0, 10.0, 11.0],
        [14.0, 15.0, 14.0, 15.0],
    ]  # fmt: skip
    close(out.terms["commitment"], ((out.z_q - z) ** 2).mean().detach())


@pytest.mark.parametrize("grid", [(4, 6), (5, 3), (1, 1)])
def test_a_fold_of_one_is_the_inner_head(grid):
    inner, z = vq(6), torch.randn(2, *grid, 6)
    a, b = Folded(6, inner=inner, fold=1)(z), inner(z)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.loss, b.loss)


@pytest.mark.parametrize(
    ("fold", "grid", "tokens"),
    [
        (2, (4, 6), (2, 3)), (2, (5, 3), (3, 2)), ([3, 1], (4, 5), (2, 5)),
        ([2, 3, 2], (3, 3, 3), (2, 1, 2)),
    ],
)  # fmt: skip
def test_incomplete_patches_are_filled_and_cropped(fold, grid, tokens):
    head = Folded(3, inner=vq(7), fold=fold).eval()
    z = torch.randn(2, *grid, 3)
    out = head(z)
    assert out.indices.shape == (2, *tokens, 1)
    assert head.index_grid(grid) == tokens
    assert torch.equal(head.decode(head.encode(z), grid), out.z_q)
    whole = tuple(n * k for n, k in zip(tokens, head.fold, strict=True))
    assert head.decode(out.indices).shape == (2, *whole, 3)
    crop = (slice(None), *(slice(n) for n in grid))
    assert torch.equal(head.decode(out.indices)[crop], out.z_q)


def test_a_prefix_of_a_stack_decodes():
    head = Folded(2, inner=Residual(8, stages=[vq(8) for _ in range(3)]))
    indices = head.encode(torch.randn(1, 4, 4, 2))
    first = torch.cat([indices[..., :1], torch.full_like(indices[..., 1:], -1)], dim=-1)
    assert torch.equal(head.decode(indices[..., :1]), head.decode(first))


def test_the_inner_head_learns_from_patches():
    head = Folded(1, inner=vq(4, 2, codebook_update="ema", decay=0.0, restart_threshold=0.0))
    with_codes(head.inner, [[0.0] * 4, [9.0] * 4], [1.0, 1.0])
    z = torch.tensor([1.0, 2.0, 8.0, 10.0])[:, None, None, None].expand(4, 2, 2, 1)
    head.update(z, head(z).indices)
    close(head.inner.codebook, torch.tensor([[1.5] * 4, [9.0] * 4]), atol=1e-3)
    assert head.learns_by_update


def test_a_config_gives_the_inner_head_the_width_of_latents():
    config = {"name": "folded", "inner": {"name": "vq", "codebook_size": 4}}
    head = registry.build("quantizer", config, dim=6)
    assert (head.inner.dim, head.patch_in.in_features) == (6, 24)
    wide = {**config, "inner": {**config["inner"], "dim": 24}}
    assert registry.build("quantizer", wide, dim=6).patch_in is None


def test_mistakes_are_named():
    assert message(lambda: Folded(2, inner=[vq(8), vq(8)])) == (
        "Folded: expected one inner quantizer; got 2 of them. Give inner a mapping with a name."
    )
    assert message(lambda: Folded(2, inner=vq(8), fold=0)) == (
        "Folded: expected a side of a patch of at least 1; got 0. Give a positive whole number."
    )
    inside = MultiScale(2, inner=[vq(2)], scales=[1, 2])
    assert message(lambda: Folded(2, inner=inside)).startswith(
        "Folded: expected parts that quantize each position by itself; got MultiScale."
    )
    head = Folded(2, inner=vq(8))
    assert message(lambda: head(torch.zeros(1, 4, 2)), ShapeError) == (
        "Folded: expected latents on a grid of rank 2 with at least 1 position per axis; got "
        "(4,). Reshape them, or set the head's axes."
    )
    indices = torch.zeros(1, 2, 2, 1, dtype=torch.int64)
    assert message(lambda: head.decode(indices, (6, 4)), ShapeError) == (
        "decode: expected indices on (3, 2) for latents on (6, 4); got (2, 2). "
        "Pass the grid of the latents they were made from."
    )
