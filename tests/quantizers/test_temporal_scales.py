import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.rates import depth_first
from tokenizers_vq.quantizers.factorized import FactorizedVQ
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.quantizers.temporal_scales import TemporalScales


def make(strides=(4, 2, 1), dim=6, **options):
    torch.manual_seed(0)
    heads = [FactorizedVQ(dim, codebook_size=16, code_dim=3) for _ in strides]
    return TemporalScales(dim, inner=heads, strides=list(strides), **options)


def test_codes_are_those_of_averages_that_are_repeated():
    head, z = make().eval(), torch.randn(2, 8, 6)
    rest, total = z, torch.zeros_like(z)
    for part, stage, stride in zip(head.split(head.encode(z)), head.inner, (4, 2, 1), strict=True):
        low = rest.unflatten(1, (-1, stride)).mean(2)
        e = F.normalize(F.linear(low, stage.project_in.weight, stage.project_in.bias), dim=-1)
        index = (e @ F.normalize(stage.codebook, dim=-1).T).argmax(-1)
        assert torch.equal(part[..., 0], index)
        q = F.linear(stage.codebook[index], stage.project_out.weight, stage.project_out.bias)
        q = q.repeat_interleave(stride, dim=1)
        rest, total = rest - q, total + q
    torch.testing.assert_close(head(z).z_q, total)
    assert isinstance(head, MultiScale)  # whose prefixes a tokenizer decodes


def test_the_order_of_a_language_model_is_depth_first_and_goes_back():
    head = make()
    indices = torch.arange(14)[None, :, None]  # 2, 4 and 8 codes
    order = head.interleave(indices).flatten().tolist()
    assert order == [0, 2, 6, 7, 3, 8, 9, 1, 4, 10, 11, 5, 12, 13]
    assert torch.equal(head.deinterleave(head.interleave(indices)), indices)
    assert torch.equal(head.merge(head.split(indices)), indices)
    assert depth_first([2, 4, 8, 16])[:15].tolist() == [
        0, 2, 6, 14, 15, 7, 16, 17, 3, 8, 18, 19, 9, 20, 21
    ]  # fmt: skip


@pytest.mark.parametrize("strides", [(4, 2, 1), (8, 4, 2, 1), (1,), (6, 3)])
def test_every_length_has_codes_and_comes_back(strides):
    head = make(strides).eval()
    for length in range(1, 26):
        codes = head.encode(torch.randn(1, length, 6))
        assert codes.shape[1] == head.token_count((length,))
        (back,) = head.latent_grid((codes.shape[1],))
        assert head.token_count((back,)) == codes.shape[1]
        assert back == length or strides[-1] > 1
        assert head.decode(codes, (length,)).shape == (1, length, 6)


def test_maps_and_codebooks_learn_through_the_output_and_the_losses():
    head, z = make(), torch.randn(2, 8, 6, requires_grad=True)
    out = head(z)
    out.z_q.square().sum().backward(retain_graph=True)
    torch.testing.assert_close(z.grad, 2 * out.z_q.detach())
    assert all(stage.project_out.weight.grad.abs().sum() > 0 for stage in head.inner)
    out.loss.backward()
    assert all(stage.codebook.grad.abs().sum() > 0 for stage in head.inner)
    assert {"commitment", "commitment/2", "codebook/0"} <= set(out.terms)


def test_dropped_scales_are_missing_and_add_nothing():
    head = make(scale_dropout=1.0)
    head.generator = torch.Generator().manual_seed(1)
    z = torch.randn(64, 8, 6)
    out = head(z)
    parts = head.split(out.indices)
    assert (parts[0] >= 0).all()
    gone = (parts[2] < 0).all(1).flatten()
    assert 0 < gone.sum() < 64
    torch.testing.assert_close(head.decode(out.indices), out.z_q)


def message(call):
    with pytest.raises((ConfigError, ShapeError)) as error:
        call()
    return str(error.value).partition("\n")[0]


def test_mistakes_are_named():
    assert message(lambda: make((4, 3, 1))) == (
        "TemporalScales: expected strides of which each divides the one before; got [4, 3, 1]. "
        "List them from slow to fast, e.g. [4, 2, 1]."
    )
    head = make()
    assert message(lambda: head.split(torch.zeros(1, 15, 1, dtype=torch.int64)[:, :0])) == (
        "TemporalScales: expected as many indices as a sequence has; got 0 with strides "
        "[4, 2, 1]. Keep the indices of all scales together."
    )
    parts = head.split(torch.zeros(1, 14, 1, dtype=torch.int64))
    assert message(lambda: head.merge(parts[::-1])) == (
        "merge: expected scales of [2, 4, 8] indices; got [8, 4, 2]. "
        "Give all scales of one sequence, the slowest first."
    )
