import pytest
import torch
from golden import C4, X, close
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional import assignment
from tokenizers_vq.functional.assignment import assignment_sums, soft_codes
from tokenizers_vq.quantizers.ibq import IBQ

CODES = torch.tensor([[0.5, 0.0], [1.0, 0.2], [0.0, 1.0], [-1.0, -1.0]])


def ibq(codes=CODES, **options):
    head = IBQ(codes.shape[1], codebook_size=len(codes), **options)
    with torch.no_grad():
        head.codebook.copy_(codes)
    return head


def test_golden_indices_and_losses():
    out = ibq(entropy_weight=0.0)(X)
    assert "entropy_batch" not in out.terms
    assert out.indices.flatten().tolist() == [1, 1, 1, 2, 1]  # nearest would be 0, 1, 1, 2, 0
    assert torch.equal(out.z_q[0], CODES[[1, 1, 1, 2, 1]])
    close(out.loss, 0.6795)
    full = ibq()(X)
    close(full.terms["entropy_sample"], 4.7957e-5, atol=1e-9)
    mean = torch.softmax(100 * X[0] @ CODES.T, 1).mean(0)
    close(-(mean * (mean + 1e-5).log()).sum(), 0.500401, atol=1e-6)  # with the authors' guard
    close(full.terms["entropy_batch"], -torch.xlogy(mean, mean).sum())
    close(full.loss, 0.6795 + 0.05 * (4.7957e-5 - 0.5004236))


def test_golden_gradients_reach_every_code_and_the_latents():
    head, z = ibq(), X.clone().requires_grad_()
    (head(z).z_q * torch.tensor([1.0, 2.0])).sum().backward()
    expected = [-0.443499, -0.370452, 4.349485, 8.058237, 1.769422, 2.694457, -0.675409, -0.382242]
    close(head.codebook.grad.flatten(), expected)
    expected = [0.873757, 1.059667, 0.281615, 0.455199, -0.09327, 0.21757]
    close(z.grad.flatten(), [*expected, 0.415178, 0.801786, 0.58, 0.635424])


@pytest.mark.parametrize("chunk", [1, 12, 10**6])
def test_chunks_do_not_change_values_or_gradients(monkeypatch, chunk):
    monkeypatch.setattr(assignment, "CHUNK", chunk)
    monkeypatch.setattr(assignment, "MIN_ROWS", 1)
    torch.manual_seed(0)
    x, codes = torch.randn(7, 3).double(), torch.randn(5, 3).double()
    weight = torch.tensor([1.0, 1, 0, 1, 1, 1, 1]).double()
    index = (x @ codes.T).argmax(1)
    x.requires_grad_()
    codes.requires_grad_()

    def by_chunks():
        entropy, total = assignment_sums(x, codes, weight, 0.5)
        return entropy + (total**3).sum() + (soft_codes(x, codes, index) ** 2).sum()

    def at_once():
        p = torch.softmax(x @ codes.T / 0.5, 1) * weight[:, None]
        q = torch.softmax(x @ codes.T, 1)
        weights = F.one_hot(index, 5) + (q - q.detach())
        entropy = -(p * torch.log_softmax(x @ codes.T / 0.5, 1)).sum()
        return entropy + (p.sum(0) ** 3).sum() + ((weights @ codes) ** 2).sum()

    torch.testing.assert_close(by_chunks(), at_once())
    given = torch.autograd.grad(by_chunks(), (x, codes))
    torch.testing.assert_close(given, torch.autograd.grad(at_once(), (x, codes)))


def test_entropies_are_ordered_and_bounded():
    head, z = ibq(inverse_temperature=2.0), torch.randn(50, 2)
    terms = head(z).terms
    assert 0 < terms["entropy_sample"] < terms["entropy_batch"] < torch.log(torch.tensor(4.0))


def test_a_token_that_is_not_finite_teaches_no_code():
    head, z = ibq(), X.clone()
    z[0, 2, 0] = float("nan")
    head(z).z_q.sum().backward()
    bad, head.codebook.grad = head.codebook.grad, None
    head(X[:, [0, 1, 3, 4]]).z_q.sum().backward()
    torch.testing.assert_close(bad, head.codebook.grad)


def test_it_differs_from_the_nearest_code_only_by_the_lengths_of_codes():
    codes = F.normalize(torch.randn(16, 2), dim=-1)
    z = torch.randn(40, 2)
    assert torch.equal(ibq(codes).encode(z)[:, 0], torch.cdist(z, codes).argmin(1))
    assert not torch.equal(ibq(C4).encode(X)[0, :, 0], torch.cdist(X[0], C4).argmin(1))


def test_a_width_is_required():
    with pytest.raises(ConfigError) as error:
        IBQ(codebook_size=4)
    assert str(error.value) == "IBQ: expected dim or code_dim; got neither. Set one of them."


def test_an_inverse_temperature_of_zero_is_refused():
    with pytest.raises(ConfigError) as error:
        IBQ(4, codebook_size=8, inverse_temperature=0.0)
    assert str(error.value) == (
        "IBQ: expected an inverse_temperature above 0; got 0.0. "
        "Turn entropies off by entropy_weight=0."
    )
