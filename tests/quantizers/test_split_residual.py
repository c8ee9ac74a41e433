"""Parallel parts on the whole latent: against the formula, and prefixes."""

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.split_residual import SplitResidual
from tokenizers_vq.quantizers.vq import VectorQuantizer


def head():
    torch.manual_seed(0)
    stack = Residual(4, stages=[VectorQuantizer(4, codebook_size=8) for _ in range(2)])
    return SplitResidual(6, groups=[VectorQuantizer(4, codebook_size=8), stack]).eval()


@torch.no_grad()
def test_parts_see_the_whole_latent_and_add_up():
    q, z = head(), torch.randn(2, 5, 6)
    maps_in, maps_out = q.project_in.weight.split(4), q.project_out.weight.split(4, dim=1)
    rows = [z.flatten(0, 1) @ one.T for one in maps_in]
    indices = torch.cat(
        [part.encode(row) for part, row in zip(q.groups, rows, strict=True)], dim=-1
    )
    out = q(z)
    assert torch.equal(out.indices.flatten(0, 1), indices)
    codes = [q.groups[0].decode(indices[:, :1]), q.groups[1].decode(indices[:, 1:])]
    total = sum(code @ one.T for code, one in zip(codes, maps_out, strict=True))
    torch.testing.assert_close(out.z_q.flatten(0, 1), total)


@torch.no_grad()
def test_a_prefix_leaves_out_the_last_levels():
    q, z = head(), torch.randn(1, 5, 6)
    indices = q.encode(z)
    first = q.decode(q.complete(indices[..., :1]))
    code = q.groups[0].decode(indices[..., :1])
    torch.testing.assert_close(first, code @ q.project_out.weight[:, :4].T)


def test_maps_have_no_bias_also_where_widths_agree():
    q = SplitResidual(8, groups=[VectorQuantizer(4, codebook_size=8) for _ in range(2)])
    assert [name for name, _ in q.named_parameters() if "project" in name] == [
        "project_in.weight",
        "project_out.weight",
    ]


def test_parts_share_a_width_evenly():
    with pytest.raises(ConfigError) as caught:
        SplitResidual.inner_dim(9, 2)
    assert str(caught.value) == (
        "SplitResidual: expected a width that 2 parts can share; got 9. Set code_dim to a multiple."
    )
