import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.rotated import Rotated
from tokenizers_vq.quantizers.token_bridge import TokenBridge
from tokenizers_vq.quantizers.vq import VectorQuantizer


def fsq(levels=5, width=8):
    return FSQ(levels=(levels,) * width, bound="clamp")


def test_the_matrix_is_orthogonal_and_follows_its_seed():
    a, b, c = (Rotated(inner=fsq(), seed=seed).rotation for seed in (0, 0, 1))
    torch.testing.assert_close(a @ a.T, torch.eye(8), atol=1e-6, rtol=0)
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_it_is_the_inner_head_on_turned_latents():
    head, inner, z = Rotated(inner=fsq()), fsq(), torch.randn(2, 5, 8)
    out, turned = head(z), inner(z @ head.rotation)
    assert torch.equal(out.indices, turned.indices)
    torch.testing.assert_close(out.z_q, turned.z_q @ head.rotation.T)


def test_the_gradient_is_the_identity_where_the_inner_head_has_it():
    head = Rotated(inner=VectorQuantizer(8, codebook_size=16))
    z, g = torch.randn(2, 5, 8, requires_grad=True), torch.randn(2, 5, 8)
    head(z).z_q.backward(g)
    torch.testing.assert_close(z.grad, g)


def test_one_loud_channel_costs_less():
    torch.manual_seed(0)
    z = 0.05 * torch.randn(2000, 8)
    z[:, 0] *= 30  # a standard deviation of 1.5, beyond the clamp
    plain, turned = ((head(z).z_q - z).square().mean() for head in (fsq(), Rotated(inner=fsq())))
    assert float(turned) < 0.5 * float(plain)


def test_a_stage_of_a_stack():
    head = Residual(8, stages=[Rotated(inner=fsq()), Rotated(inner=fsq(), seed=1)])
    z = torch.rand(3, 4, 8) - 0.5
    out = head(z)
    assert torch.equal(head.decode(out.indices), out.z_q)


def test_another_width_is_named():
    with pytest.raises(ConfigError) as error:
        Rotated(8, inner=fsq(width=3))
    assert str(error.value) == (
        "Rotated: expected an inner quantizer of width 8; got 3. Leave its dim out."
    )


def test_scalar_levels_are_fitted_to_turned_latents():
    torch.manual_seed(0)
    head, inner = Rotated(inner=TokenBridge(channels=8)), TokenBridge(channels=8)
    z = torch.randn(500, 8) * torch.linspace(0.1, 3, 8)
    head.fit(z)
    inner.fit(z @ head.rotation)
    assert torch.equal(head.inner.levels, inner.levels)
    with pytest.raises(ConfigError) as error:
        Rotated(inner=fsq()).fit(z)
    assert str(error.value) == (
        "Rotated.fit: expected token_bridge inside; got FSQ. Train that instead."
    )
