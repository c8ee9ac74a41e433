"""Beam search over the stages of a residual stack."""

import itertools

import pytest
import torch
from golden import with_codes

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers import stages
from tokenizers_vq.quantizers.factorized import FactorizedVQ
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.simvq import SimVQ
from tokenizers_vq.quantizers.vq import VectorQuantizer


def toy(beam, depth=4, seed=3, **options):
    """Return a stack whose codebooks are residuals of normal data, for width 4."""
    torch.manual_seed(seed)
    parts = [VectorQuantizer(4, codebook_size=16, kmeans_init="random") for _ in range(depth)]
    head = Residual(stages=parts, beam=beam, **options)
    z = torch.randn(1, 2000, 4)
    head.update(z, head(z).indices)
    return head.eval()


def errors(head, z):
    return (z - head.decode(head.encode(z))).detach().square().sum(-1)


def test_the_error_does_not_grow_with_the_beam():
    z = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    found = {beam: errors(toy(beam), z) for beam in (1, 2, 4, 16)}
    mean = [float(error.mean()) for error in found.values()]
    assert all(b <= a for a, b in itertools.pairwise(mean))
    assert mean[2] < 0.95 * mean[0]
    for error in found.values():
        assert bool((error <= found[1] + 1e-6).all())


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_is_never_worse_than_the_greedy_choice_for_any_token(seed):
    z = 2 * torch.randn(200, 4, generator=torch.Generator().manual_seed(seed))
    assert bool((errors(toy(2, seed=seed), z) <= errors(toy(1, seed=seed), z)).all())


def test_a_beam_as_wide_as_all_sums_finds_the_best_of_them():
    parts = [with_codes(VectorQuantizer(3, codebook_size=5), torch.randn(5, 3)) for _ in range(3)]
    head = Residual(stages=parts, beam=125)
    z = torch.randn(40, 3)
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)
    best = torch.cdist(z, head.decode(every)).min(dim=1)
    torch.testing.assert_close(errors(head, z).sqrt(), best.values)
    assert torch.equal(head.encode(z), every[best.indices])


def test_forward_and_encode_choose_alike_and_learn_from_the_choice():
    head = toy(4).train()
    z = torch.randn(3, 50, 4, requires_grad=True)
    out = head(z)
    assert torch.equal(out.indices, head.encode(z))
    assert torch.equal(out.z_q, head.decode(out.indices))
    assert not torch.equal(out.indices, toy(1).encode(z))
    rest = z - head.decode(out.indices[..., :1])
    codes = head.stages[1].codebook[out.indices[..., 1]]
    torch.testing.assert_close(out.terms["commitment/1"], (rest - codes).square().mean())
    out.z_q.backward(torch.ones_like(z))
    assert torch.equal(z.grad, torch.ones_like(z))


def test_the_sums_compared_at_a_time_are_bounded(monkeypatch):
    head, z = toy(4), torch.randn(60, 4)
    whole, rows = head.encode(z), []
    plain = VectorQuantizer.candidates
    monkeypatch.setattr(stages, "CHUNK", 7 * 4 * 4 * 4)  # rows, two beams, width

    def counted(self, u, count):
        rows.append(u.shape[0])
        return plain(self, u, count)

    monkeypatch.setattr(VectorQuantizer, "candidates", counted)
    assert torch.equal(head.encode(z), whole)
    assert max(rows) == 7 * 4


def test_any_split_of_the_batch_gives_the_same_indices():
    head, z = toy(4), torch.randn(60, 4)
    parts = [head.encode(part) for part in z.split([1, 7, 52])]
    assert torch.equal(torch.cat(parts), head.encode(z))


def test_items_that_stop_early_get_the_best_path_of_their_depth():
    head = toy(4, stage_dropout=1.0).train()
    z = torch.randn(32, 5, 4)
    out = head(z)
    depth = (out.indices >= 0).sum(-1)[:, 0]
    assert set(depth.tolist()) == {1, 2, 3, 4}
    for count in (1, 2, 3, 4):
        short = Residual(stages=list(head.stages)[:count], beam=4)
        expected = short.encode(z[depth == count])
        assert torch.equal(out.indices[depth == count][..., :count], expected)


@pytest.mark.parametrize(
    "stage",
    [
        lambda: FactorizedVQ(6, codebook_size=8, code_dim=2),
        lambda: SimVQ(6, codebook_size=8, code_dim=3),
        lambda: VectorQuantizer(6, codebook_size=8, code_dim=3, metric="cosine"),
    ],
)
def test_stages_with_maps_of_their_own(stage):
    torch.manual_seed(0)
    parts = [stage() for _ in range(3)]
    head, greedy = Residual(6, stages=parts, beam=4), Residual(6, stages=parts)
    z = 3 * torch.randn(40, 6)
    out = head(z)
    assert torch.equal(out.indices, head.encode(z))
    torch.testing.assert_close(out.z_q, head.decode(out.indices))
    assert float(errors(head, z).mean()) <= float(errors(greedy, z).mean())


def test_stages_with_a_search_of_their_own_are_refused():
    group = Grouped(4, groups=[FSQ(levels=[3, 3]), FSQ(levels=[3, 3])])
    with pytest.raises(ConfigError) as error:
        Residual(4, stages=[VectorQuantizer(4, codebook_size=8), group], beam=2)
    assert str(error.value) == (
        "Residual: expected stages that take a beam's choice; got Grouped at stage 1. Use beam=1."
    )
