import math

import pytest
import torch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.binary_mapper import BinaryMapper


def mapper(**options):
    torch.manual_seed(1)
    return BinaryMapper(4, bits=3, **options)


def products(head, z):
    """Return the probability of each code by its bits, one after the other."""
    chance = torch.sigmoid(head.scores(z))
    rows = []
    for code in range(8):
        bits = [chance[:, i] if code >> i & 1 else 1 - chance[:, i] for i in range(3)]
        rows.append(bits[0] * bits[1] * bits[2])
    return torch.stack(rows, dim=1)


def test_draws_follow_the_product_of_the_bits():
    head, z = mapper(), torch.randn(1, 4)
    out = head(z.expand(40_000, 4))
    share = torch.bincount(out.indices[:, 0], minlength=8) / 40_000
    close(share, products(head, z)[0].detach(), atol=0.01)
    assert torch.equal(out.z_q, head.decode(out.indices))
    assert head.eval()(z).indices.item() == int(products(head, z).argmax())


def test_the_gradient_is_that_of_the_mean_of_the_codes():
    head, z = mapper().eval(), torch.randn(5, 4, requires_grad=True)
    g = torch.randn(5, 4)
    (got,) = torch.autograd.grad((head(z).z_q * g).sum(), z)
    (wanted,) = torch.autograd.grad((products(head, z) @ head.codebook.detach() * g).sum(), z)
    close(got, wanted)
    (codes,) = torch.autograd.grad((head(z).z_q * g).sum(), head.codebook)
    indices = head.encode(z)[:, 0]
    close(codes, torch.zeros(8, 4).index_add(0, indices, g))


def test_what_a_token_says_costs_beyond_the_free_nats():
    z = torch.randn(6, 4)
    head = mapper(kl_weight=0.5)
    p = products(head, z)
    kl = (p * (8 * p).log()).sum(1)
    out = head(z)
    close(out.terms["kl"], kl.mean().detach())
    close(out.loss, 0.5 * (kl - math.log(2)).relu().mean())
    head.free_bits = 0.0
    close(head(z).loss, 0.5 * kl.mean())
    head.free_bits = 3 * math.log(2)
    assert float(head(z).loss.detach()) == 0


def test_sure_bits_stay_finite():
    head, z = mapper(), torch.full((2, 4), 1e6, requires_grad=True)
    out = head(z)
    (out.z_q.sum() + out.loss).backward()
    assert bool(torch.isfinite(out.loss))
    assert bool(torch.isfinite(z.grad).all())


@pytest.mark.parametrize("bits", [0, 17, 2.0])
def test_other_numbers_of_bits_are_named(bits):
    with pytest.raises(ConfigError) as error:
        BinaryMapper(4, bits=bits)
    assert str(error.value) == (
        f"BinaryMapper: expected 1 to 16 bits; got {bits!r}. Use a grouped quantizer for more."
    )


def test_other_free_bits_are_named():
    with pytest.raises(ConfigError) as error:
        mapper(free_bits=-0.1)
    assert str(error.value) == (
        "BinaryMapper: expected free_bits of at least 0; got -0.1. They are nats."
    )
