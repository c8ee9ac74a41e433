"""Residual stacks of scalar grids, of signs, and of one frozen table."""

import itertools

import pytest
import torch
import vector_quantize_pytorch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.simvq import SimVQ

RFSQ = torch.tensor([[0.9, -0.2], [-0.35, 0.7]])


def rfsq(levels, depth, **options):
    return Residual(
        stages=[FSQ(levels=levels, bound="clamp") for _ in range(depth)],
        stage_scale=[1 / n for n in levels],
        soft_clamp=[1 + 1 / (n - 1) for n in levels],
        **options,
    )


def test_golden_residual_grid():
    head = rfsq([5, 3], 3)
    out = head(RFSQ)
    assert out.indices.tolist() == [[9, 0, 11], [11, 4, 5]]
    close(out.z_q, [[0.78, -0.222222], [-0.34, 0.666667]])
    parts = [head.decode(out.indices[:, :depth]) for depth in (1, 2, 3)]
    close(parts[0], [[1, 0], [-0.5, 1]])
    close(parts[1] - parts[0], [[-0.2, -0.333333], [0.2, -0.333333]])
    close(parts[2] - parts[1], [[-0.02, 0.111111], [-0.04, 0]])


def test_values_agree_with_vector_quantize_pytorch():
    theirs = vector_quantize_pytorch.ResidualFSQ(dim=2, levels=[5, 3], num_quantizers=3).eval()
    z = 2 * torch.rand(1, 2000, 2) - 1
    quantized, indices = theirs(z)
    out = rfsq([5, 3], 3)(z)
    assert torch.equal(out.indices, indices.long())
    torch.testing.assert_close(out.z_q, quantized)


def test_every_stage_takes_the_error_down_by_about_its_levels():
    z = 2 * torch.rand(20000, 3, generator=torch.Generator().manual_seed(0)) - 1
    head = rfsq([5, 5, 5], 4)
    bounded = 1.25 * torch.tanh(z / 1.25)
    indices = head.encode(z)
    rms = [(head.decode(indices[:, :n]) - bounded).square().mean().sqrt() for n in (1, 2, 3, 4)]
    for coarse, fine in itertools.pairwise(rms):  # without stage_scale the ratio is 1
        assert 4.5 < float(coarse / fine) < 6


def test_the_gradient_is_the_slope_of_the_soft_clamp():
    head = rfsq([5, 3], 3, stage_dropout=0.5)
    z = torch.randn(20, 2, requires_grad=True)
    head(z).z_q.sum().backward()
    slope = 1 - torch.tanh(z.detach() / torch.tensor([1.25, 1.5])).square()
    torch.testing.assert_close(z.grad, slope)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_residual_signs_are_a_uniform_scalar_quantizer(stages):
    head = Residual(stages=[LFQ(bits=3) for _ in range(stages)], stage_scale=0.5)
    step = 2.0 ** (2 - stages)
    top = 2 - step / 2
    z = 3 * torch.randn(2000, 3)
    expected = (torch.floor(z / step) * step + step / 2).clamp(-top, top)
    torch.testing.assert_close(head(z).z_q, expected, atol=0, rtol=0)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prefixes_of_signs_are_coarser_uniform_quantizers(depth):
    head = Residual(stages=[LFQ(bits=3) for _ in range(4)], stage_scale=0.5)
    short = Residual(stages=[LFQ(bits=3) for _ in range(depth)], stage_scale=0.5)
    z = torch.randn(500, 3)
    assert torch.equal(head.decode(head.encode(z)[:, :depth]), short(z).z_q)


def test_every_index_of_a_residual_grid_is_reached_by_its_code():
    head = Residual(stages=[LFQ(bits=2) for _ in range(3)], stage_scale=0.5)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    assert torch.equal(head.encode(head.decode(every)), every)


def test_residual_frozen_tables_learn_one_map_each():
    head = Residual(stages=[SimVQ(4, codebook_size=32) for _ in range(3)])
    z = torch.randn(50, 4, requires_grad=True)
    out = head(z)
    (out.z_q.sum() + out.loss).backward()
    for i, stage in enumerate(head.stages):
        assert float(stage.linear.weight.grad.abs().sum()) > 0
        close(out.terms[f"codebook/{i}"], float(out.terms[f"commitment/{i}"]))
    sums = sum(stage.codes()[out.indices[:, i]] for i, stage in enumerate(head.stages))
    torch.testing.assert_close(out.z_q, sums)
    dropped = Residual(stages=list(head.stages), stage_dropout=1.0)(z).indices
    assert set((dropped >= 0).sum(-1).tolist()) == {1, 2, 3}


@pytest.mark.parametrize(
    ("option", "value"),
    [("stage_scale", [0.5, 0.5]), ("stage_scale", 0.0), ("soft_clamp", "wide"), ("soft_clamp", -1)],
)
def test_options_with_one_number_per_channel(option, value):
    with pytest.raises(ConfigError) as error:
        Residual(stages=[FSQ(levels=[3] * 3, bound="clamp")], **{option: value})
    assert str(error.value) == (
        f"Residual: expected a {option} above 0, one number or 3; got {value!r}."
    )


def test_the_numbers_per_channel_move_with_the_module_but_stay_float32():
    head = rfsq([5, 3], 3)
    whole, half = head(RFSQ), head.to(torch.bfloat16)(RFSQ)
    assert torch.equal(whole.indices, half.indices)
    assert head._channel_scale.dtype == torch.float32
    assert [key for key in head.state_dict() if "channel" in key] == []
