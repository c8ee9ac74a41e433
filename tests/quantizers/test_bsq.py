import math

import pytest
import torch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.bsq import BSQ
from tokenizers_vq.quantizers.lfq import LFQ

Z = torch.tensor([[0.5, -1.0, 0.25, 2.0], [-0.3, 0.8, 0.1, -0.4], [1.0, 1.0, -1.0, 0.2]])


def test_golden_one_token():
    head = BSQ(bits=4, commitment_weight=0.25, entropy_weight=0.0)
    out = head(Z[:1])
    assert out.z_q.tolist() == [[0.5, -0.5, 0.5, 0.5]]
    assert out.indices.item() == 0b1101  # 11 with the highest bit first
    assert set(out.terms) == {"commitment", "nonfinite"}
    close(out.loss, 0.093255)
    out = BSQ(bits=4)(Z[:1])
    close(out.terms["entropy_sample"], 2.387184)
    close(out.terms["entropy_batch"], 2.387184)


def test_golden_three_tokens():
    out = BSQ(bits=4)(Z)
    msb_first = [int(f"{i:04b}"[::-1], 2) for i in out.indices.flatten().tolist()]
    assert msb_first == [11, 6, 13]
    close(out.terms["entropy_sample"], 2.369557)
    close(out.terms["entropy_batch"], 2.677579)


def test_golden_three_tokens_bit_by_bit():
    """The loss of the released models, whose batch entropy is the sum over bits."""
    head = BSQ(bits=4, commitment_weight=0.25, entropy_weight=1.0)
    out = head(Z)
    plus = torch.sigmoid(4 * head.scale * Z / Z.norm(dim=1, keepdim=True)).mean(0)
    close(1 - plus, [0.429091, 0.367175, 0.550815, 0.430648])
    bits = -(plus * plus.log() + (1 - plus) * (1 - plus).log()).sum()
    close(bits, 2.711963)
    close(out.loss + out.terms["entropy_batch"] - bits, -0.2714766)


def test_the_gradient_to_the_unit_vector_is_the_identity():
    z = Z.clone().requires_grad_()
    unit = z / z.norm(dim=1, keepdim=True)
    g = torch.randn(3, 4)
    (expected,) = torch.autograd.grad((unit * g).sum(), z)
    (got,) = torch.autograd.grad((BSQ(bits=4)(z).z_q * g).sum(), z)
    torch.testing.assert_close(got, expected)


def test_it_is_scaled_lfq_on_normalised_latents():
    z, d = torch.randn(4, 25, 9), 9
    unit = z / z.norm(dim=-1, keepdim=True)
    bsq = BSQ(bits=d, commitment_weight=0.0)
    lfq = LFQ(bits=d, scale=d**-0.5, inverse_temperature=1.0, commitment_weight=0.0)
    a, b = bsq(z), lfq(unit)
    assert torch.equal(a.indices, b.indices)
    torch.testing.assert_close(a.z_q, b.z_q)
    torch.testing.assert_close(a.loss, b.loss)
    torch.testing.assert_close(a.terms["commitment"], d * b.terms["commitment"])


def test_codes_have_unit_length_and_the_error_is_bounded():
    z = torch.randn(2000, 18)
    z[:18] = torch.eye(18)  # the worst case
    q = BSQ(bits=18)(z).z_q
    torch.testing.assert_close(q.norm(dim=1), torch.ones(2000))
    error = (z / z.norm(dim=1, keepdim=True) - q).norm(dim=1)
    assert float(error.max()) <= math.sqrt(2 - 2 / math.sqrt(18)) + 1e-6
    assert float(error[18:].mean()) == pytest.approx(0.6135, abs=0.005)


def test_36_bits_round_trip():
    head = BSQ(bits=36)
    indices = torch.randint(2**36, (1000, 1))
    assert torch.equal(head.encode(head.decode(indices)), indices)


def test_bits_out_of_range():
    with pytest.raises(ConfigError) as error:
        BSQ(bits=0)
    assert str(error.value) == (
        "BSQ: expected 1 to 62 bits; got 0. Use a grouped quantizer for more."
    )
