import pytest
import torch
import vector_quantize_pytorch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.radix import reverse_bits
from tokenizers_vq.quantizers.bsq import BSQ
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.residual import Residual

ENTROPY = torch.tensor([[[0.003, -0.002], [-0.001, 0.004], [0.002, 0.002]]])


def test_golden_signs():
    out = LFQ(bits=4)(torch.tensor([[0.3, -0.2, 1.5, -0.7]]))
    assert out.z_q.tolist() == [[1, -1, 1, -1]]
    assert out.indices.tolist() == [[5]]
    assert reverse_bits(out.indices, 4).tolist() == [[10]]
    close(out.terms["commitment"], 0.3675)


def test_golden_entropy():
    head = LFQ(bits=2)
    out = head(ENTROPY)
    close(out.terms["entropy_sample"], 1.1748757)
    close(out.terms["entropy_batch"], 1.3248453)
    close(out.terms["commitment"], 0.99534)
    close(out.loss, 0.1 * (1.1748757 - 1.3248453) + 0.25 * 0.99534)


def test_golden_18_signs():
    z = torch.tensor([[1.0 if c == "+" else -1.0 for c in "+--+++-+---+-+++-+"]])
    assert LFQ(bits=18).encode(z).item() == 190649


@pytest.mark.parametrize("head", [LFQ, BSQ])
def test_the_first_channel_may_be_the_highest_bit(head):
    z = torch.tensor([[0.3, -0.2, 1.5, 0.7]])
    little, big = head(bits=4), head(bits=4, bit_order="big")
    assert little.encode(z).tolist() == [[13]]
    assert big.encode(z).tolist() == [[11]]
    assert torch.equal(big.decode(torch.tensor([[11]])), little.decode(torch.tensor([[13]])))
    assert torch.equal(big(z).z_q, little(z).z_q)
    first = torch.tensor([[1.0, *[-1.0] * 35]])
    assert head(bits=36, bit_order="big").encode(first).item() == 2**35
    with pytest.raises(ConfigError) as error:
        head(bits=4, bit_order="middle")
    assert str(error.value) == (
        f"{head.__name__} bit_order: there is no 'middle'; choose one of big, little."
    )


def test_zero_counts_as_negative():
    assert LFQ(bits=3).encode(torch.zeros(1, 3)).item() == 0


def test_more_bits_than_the_exact_entropy_takes_are_named_a_bound():
    terms = LFQ(bits=30)(torch.randn(5, 30)).terms
    assert "entropy_batch_bound" in terms
    assert "entropy_batch" not in terms


def test_scale_is_the_size_of_the_codes():
    out = LFQ(bits=2, scale=0.5)(torch.tensor([[3.0, -3.0]]))
    assert out.z_q.tolist() == [[0.5, -0.5]]


def test_18_bits_train_in_little_memory():
    z = (0.01 * torch.randn(1, 64, 18)).requires_grad_()
    LFQ(bits=18)(z).loss.backward()
    assert bool(torch.isfinite(z.grad).all())


def test_values_agree_with_vector_quantize_pytorch():
    theirs = vector_quantize_pytorch.LFQ(
        dim=8, codebook_size=256, entropy_loss_weight=1.0, diversity_gamma=1.0
    )
    theirs.train()
    z = 0.01 * torch.randn(1, 40, 8)
    quantized, index, entropy = theirs(z)
    ours = LFQ(bits=8, entropy_weight=1.0, commitment_weight=0.0)(z)
    assert torch.equal(ours.z_q, quantized.sign())
    assert torch.equal(reverse_bits(ours.indices, 8).flatten(), index.flatten())
    # theirs clamps probabilities at 1e-5 inside the logarithm
    torch.testing.assert_close(ours.loss, entropy, atol=2e-3, rtol=0)


@pytest.mark.parametrize("bits", [0, 63, 2.5])
def test_bits_out_of_range(bits):
    with pytest.raises(ConfigError) as error:
        LFQ(bits=bits)
    assert str(error.value) == (
        f"LFQ: expected 1 to 62 bits; got {bits}. Use a grouped quantizer for more."
    )


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_flipped_bits_change_the_output_and_neither_indices_nor_losses(kind):
    torch.manual_seed(0)
    plain, head = kind(bits=8), kind(bits=8, flip_rate=0.3)
    z = torch.randn(2000, 5, 8)
    right, out = plain(z), head(z)
    assert torch.equal(out.indices, right.indices)
    assert torch.equal(out.loss, right.loss)
    assert torch.equal(out.z_q.abs(), right.z_q.abs())
    wrong = (out.z_q != right.z_q).float()
    assert float(wrong.mean()) == pytest.approx(0.15, abs=0.01)
    # An item's rate is uniform in 0..0.3, so the number of wrong bits varies more than by chance.
    variance = 40 * (0.15 - 0.0225 - 0.0075) + 40**2 * 0.0075
    assert float(wrong.sum((1, 2)).var()) == pytest.approx(variance, rel=0.1)
    assert torch.equal(head.eval()(z).z_q, right.z_q)


def test_flipped_bits_keep_the_gradient():
    z, g = torch.randn(4, 5, 8, requires_grad=True), torch.randn(4, 5, 8)
    LFQ(bits=8, flip_rate=1.0, commitment_weight=0.0)(z).z_q.backward(g)
    assert torch.equal(z.grad, g)


def test_later_stages_correct_flipped_bits():
    torch.manual_seed(0)
    stages = [LFQ(bits=8, flip_rate=1.0), *[LFQ(bits=8) for _ in range(4)]]
    head = Residual(8, stages=stages, stage_scale=0.6)
    z = torch.rand(200, 5, 8) - 0.5
    out = head(z)
    blind = head.decode(out.indices)  # labels alone do not say which bits were wrong
    assert float((out.z_q - z).abs().mean()) < 0.5 * float((blind - z).abs().mean())


@pytest.mark.parametrize("kind", [LFQ, BSQ])
@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_no_probability_of_a_flip(kind, rate):
    with pytest.raises(ConfigError) as error:
        kind(bits=8, flip_rate=rate)
    assert str(error.value) == (
        f"{kind.__name__}: expected flip_rate in 0..1; got {rate}. It is a probability."
    )
