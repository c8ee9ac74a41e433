import itertools

import pytest
import torch
from golden import close, with_codes

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.mcrvq import MCRVQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer


def codebooks(depth, dim, **options):
    return [
        with_codes(VectorQuantizer(dim, codebook_size=16, **options), 0.7 * torch.randn(16, dim))
        for _ in range(depth)
    ]


def masked(z, start, stop):
    out = torch.zeros_like(z)
    out[..., start:stop] = z[..., start:stop]
    return out


@pytest.mark.parametrize(("dim", "sizes"), [(128, [42, 43, 43]), (7, [2, 2, 3]), (3, [1, 1, 1])])
def test_the_cut_points_of_the_channels(dim, sizes):
    head = MCRVQ(stages=[VectorQuantizer(dim, codebook_size=2) for _ in range(3)])
    assert head._masks.sum(1).tolist() == sizes
    assert bool((head._masks.sum(0) == 1).all())


def test_levels_by_hand():
    stages = codebooks(5, 7)
    z = torch.randn(40, 7)
    parts = [stages[0](masked(z, 0, 2)), stages[1](masked(z, 2, 4)), stages[2](masked(z, 4, 7))]
    for stage in stages[3:]:
        parts.append(stage(z - sum(part.z_q for part in parts)))
    out = MCRVQ(stages=stages)(z)
    assert torch.equal(out.indices, torch.cat([part.indices for part in parts], dim=1))
    torch.testing.assert_close(out.z_q, sum(part.z_q for part in parts))
    torch.testing.assert_close(out.loss, torch.stack([part.loss for part in parts]).mean())
    for i, part in enumerate(parts):
        close(out.terms[f"commitment/{i}"], float(part.terms["commitment"]))


def test_encode_equals_forward_and_is_no_ordinary_residual_stack():
    stages = codebooks(5, 6)
    head = MCRVQ(stages=stages).eval()
    z = torch.randn(4, 30, 6)
    out = head(z)
    assert torch.equal(head.encode(z), out.indices)
    assert torch.equal(head.decode(head.encode(z)), out.z_q)
    assert not torch.equal(Residual(stages=stages).encode(z), out.indices)


def test_one_part_is_a_residual_stack():
    stages = codebooks(4, 6)
    z = torch.randn(4, 30, 6)
    a, b = MCRVQ(stages=stages, parts=1)(z), Residual(stages=stages)(z)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.z_q, b.z_q)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_encoder_gradient_is_the_identity(dropout):
    head = MCRVQ(stages=codebooks(5, 6), stage_dropout=dropout)
    z, g = torch.randn(8, 3, 6, requires_grad=True), torch.randn(8, 3, 6)
    head(z).z_q.backward(g)
    assert torch.equal(z.grad, g)


def test_a_masked_stage_commits_in_its_own_channels_only():
    head = MCRVQ(stages=codebooks(5, 6))
    for i, stage in enumerate(head.stages):
        stage.commitment_weight = float(i == 1)
    z = torch.randn(9, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(head(z).loss, z)
    assert bool((gradient[:, [0, 1, 4, 5]] == 0).all())
    assert bool((gradient[:, 2:4] != 0).all())


def test_the_masked_stages_are_never_dropped():
    head = MCRVQ(stages=codebooks(6, 6), stage_dropout=1.0)
    depth = (head(torch.randn(200, 1, 6)).indices >= 0).sum(-1)
    assert set(depth.flatten().tolist()) == {3, 4, 5, 6}


def test_kmeans_starts_masked_stages_on_their_channels():
    options = {"codebook_size": 8, "codebook_update": "ema", "kmeans_init": "random"}
    head = MCRVQ(stages=[VectorQuantizer(6, **options) for _ in range(5)])
    z = torch.randn(3, 100, 6)
    head.update(z, head(z).indices)
    assert bool((head.stages[0].codebook[:, 2:] == 0).all())
    errors = [(head.decode(head.encode(z)[..., :n]) - z).square().mean() for n in (1, 2, 3, 4, 5)]
    assert all(b < a for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize(("depth", "parts", "most"), [(2, 3, 2), (5, 0, 4), (5, 5, 4)])
def test_more_parts_than_stages_or_channels(depth, parts, most):
    with pytest.raises(ConfigError) as error:
        MCRVQ(stages=codebooks(depth, 4), parts=parts)
    assert str(error.value) == (
        f"MCRVQ: expected 1 to {most} parts for {depth} stages and 4 channels; got {parts}."
    )
