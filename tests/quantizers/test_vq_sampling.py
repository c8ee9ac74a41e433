"""Codes drawn from a distribution whose temperature may be learned."""

import pytest
import torch
from golden import close, with_codes
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.vq import VectorQuantizer


def learned(**options):
    torch.manual_seed(0)
    options = {"metric": "cosine", "sample_temperature": 0.1, "entropy_weight": 0.1, **options}
    head = VectorQuantizer(4, codebook_size=8, learn_temperature=True, **options)
    return with_codes(head, F.normalize(torch.randn(8, 4), dim=-1))


def test_golden_probabilities_of_cosines():
    cosines = torch.tensor([0.99, 0.98, 0.95, 0.5])
    codes = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=1)
    head = VectorQuantizer(2, codebook_size=4, metric="cosine", sample_temperature=0.03)
    p = torch.softmax(with_codes(head, codes).assignment_logits(torch.tensor([[2.0, 0.0]])), 1)
    close(p, torch.tensor([[0.505018, 0.361861, 0.133121, 0.0]]), atol=2e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_learned_temperature_starts_as_the_given_one(metric):
    head = learned(metric=metric)
    fixed = VectorQuantizer(4, codebook_size=8, metric=metric, sample_temperature=0.1)
    with_codes(fixed, head.codes().detach())
    u = torch.randn(5, 4)
    close(head.assignment_logits(u), fixed.assignment_logits(u), atol=1e-4)
    assert float(head.inverse_temperature.detach()) == pytest.approx(10.0)


def test_draws_follow_the_learned_distribution():
    head, u = learned(), torch.randn(1, 4)
    with torch.no_grad():
        head.inverse_temperature.fill_(3.0)
    expected = torch.softmax(3.0 * F.normalize(u, dim=-1) @ head.codes().T, 1).detach()
    share = torch.bincount(head(u.expand(40_000, 4)).indices[:, 0], minlength=8) / 40_000
    close(share, expected[0], atol=0.01)
    nearest = head.eval()(u).indices
    assert nearest.item() == int(expected.argmax())


def test_the_temperature_learns_from_the_entropies_of_the_draws():
    head, u = learned(), torch.randn(6, 4)
    out = head(u)
    p = torch.softmax(head.inverse_temperature * F.normalize(u, dim=-1) @ head.codes().T, 1)
    sample, batch = torch.special.entr(p).sum(1).mean(), torch.special.entr(p.mean(0)).sum()
    close(out.terms["entropy_sample"], sample.detach())
    close(out.terms["entropy_batch"], batch.detach())
    (wanted,) = torch.autograd.grad(0.1 * (sample - batch), head.inverse_temperature)
    (got,) = torch.autograd.grad(out.loss, head.inverse_temperature)
    close(got, wanted, atol=1e-6)
    logits = head.assignment_logits(u)
    assert float(torch.autograd.grad(logits[0, 0], head.inverse_temperature)[0]) != 0


def test_a_temperature_to_start_at_is_needed():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(4, codebook_size=8, learn_temperature=True)
    assert str(error.value) == (
        "VectorQuantizer: expected a sample_temperature above 0 with learn_temperature; got 0. "
        "It is what the learned one starts at."
    )
