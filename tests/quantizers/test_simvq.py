import pytest
import torch
from golden import C4, X, close, with_codes

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.simvq import SimVQ
from tokenizers_vq.quantizers.vq import VectorQuantizer


def simvq(weight, **options):
    head = SimVQ(2, codebook_size=4, **options)
    head.table.copy_(C4)
    head.linear.weight.data.copy_(torch.tensor(weight))
    return head


def test_golden():
    head = simvq([[2.0, 0.0], [0.5, 1.0]])
    close(head.codes(), [[0, 0], [2, 0.5], [0, 1], [4, 3]])
    z = X.clone().requires_grad_()
    out = head(z)
    assert out.indices.flatten().tolist() == [0, 0, 1, 2, 0]
    close(out.loss, 0.40875)
    out.loss.backward()
    close(head.linear.weight.grad.flatten(), [0.12, -0.02, -0.22, 0.06])
    expected = [0.01, 0.005, 0.045, 0.015, -0.03, 0.055, 0.005, -0.015, 0.04, -0.005]
    close(z.grad.flatten(), expected)


def test_with_the_identity_it_is_a_vector_quantizer():
    plain = with_codes(VectorQuantizer(2, codebook_size=4), C4)
    a, b = simvq([[1.0, 0.0], [0.0, 1.0]])(X), plain(X)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.z_q, b.z_q)
    close(a.loss, 1.25 * 0.082)
    torch.testing.assert_close(a.loss, b.loss)


def test_only_the_map_learns():
    head = SimVQ(2, codebook_size=4, bias=True)
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
    z = X.clone().requires_grad_()
    head(z).z_q.sum().backward()
    assert head.linear.weight.grad is None  # the straight-through gradient stops at the codes


def test_a_width_is_required():
    with pytest.raises(ConfigError) as error:
        SimVQ(codebook_size=4)
    assert str(error.value) == "SimVQ: expected dim or code_dim; got neither. Set one of them."
