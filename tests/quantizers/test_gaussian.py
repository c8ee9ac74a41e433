import math

import pytest
import torch

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.gaussian import Gaussian


def head(**options):
    torch.manual_seed(1)
    return Gaussian(6, channels=3, **options)


def posterior(quantizer, z):
    mean = quantizer.project_in(z)
    return mean, quantizer.log_variance(z)


def test_the_divergence_is_that_of_two_normal_distributions():
    quantizer, z = head(kl_weight=0.5), torch.randn(2, 5, 6)
    mean, log_variance = posterior(quantizer, z)
    ours = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0))
    out = quantizer(z)
    torch.testing.assert_close(out.terms["kl"], expected.sum(-1).mean().detach())
    torch.testing.assert_close(out.loss, 0.5 * expected.sum(-1).mean())
    torch.testing.assert_close(out.terms["deviation"], ours.stddev.mean().detach())


def test_training_draws_from_the_posterior_and_evaluation_takes_its_mean():
    quantizer, z = head(), torch.randn(1, 6).expand(40_000, 6)
    mean, log_variance = posterior(quantizer, z[:1])
    with torch.no_grad():
        codes = torch.linalg.lstsq(
            quantizer.project_out.weight, (quantizer(z).z_q - quantizer.project_out.bias).T
        ).solution.T
    torch.testing.assert_close(codes.mean(0), mean[0].detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(codes.var(0), log_variance[0].exp().detach(), atol=0.05, rtol=0.05)
    expected = quantizer.project_out(mean)
    torch.testing.assert_close(quantizer.eval()(z[:1]).z_q, expected)


def test_without_maps_the_latent_is_the_mean():
    quantizer, z = Gaussian(6).eval(), torch.randn(2, 3, 6)
    assert torch.equal(quantizer(z).z_q, z)
    assert quantizer.project_in is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 6), (2, 4, 4, 6), (0, 5, 6), (2, 0, 6)])
def test_shapes_and_gradients(shape, dtype):
    quantizer = head()
    z = torch.randn(shape, dtype=dtype, requires_grad=True)
    out = quantizer(z)
    assert out.z_q.shape == z.shape
    assert out.z_q.dtype == dtype
    assert out.indices.shape == (*shape[:-1], 0)
    assert out.loss.dtype == torch.float32
    (out.z_q.float().square().sum() + out.loss).backward()
    assert all(parameter.grad is not None for parameter in quantizer.parameters())
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.update(z, out.indices)
    assert all(torch.equal(before[key], value) for key, value in quantizer.state_dict().items())


def test_masked_positions_and_numbers_that_are_not_finite_do_not_count():
    quantizer = head().eval()
    z, mask = torch.randn(2, 4, 6), torch.tensor([[True, True, False, True]] * 2)
    full, short = quantizer(z, mask), quantizer(z[mask])
    assert torch.equal(full.z_q[mask], short.z_q)
    assert torch.equal(full.loss, short.loss)
    assert bool((full.z_q[~mask] == 0).all())
    poisoned = torch.where(mask[..., None], z, math.nan)
    out = quantizer(poisoned)
    torch.testing.assert_close(out.loss, short.loss)
    assert float(out.terms["nonfinite"]) == 2


def test_huge_logarithms_stay_finite():
    quantizer = head()
    out = quantizer(1e15 * torch.ones(1, 6))
    assert bool(torch.isfinite(out.z_q).all())
    assert bool(torch.isfinite(out.loss))


@pytest.mark.parametrize("verb", ["encode", "decode", "lookup", "decode_soft"])
def test_codes_that_do_not_exist_are_named(verb):
    with pytest.raises(ConfigError) as error:
        getattr(head(), verb)(torch.zeros(2, 6))
    assert str(error.value) == (
        f"{verb}: expected a quantizer with codes; got the continuous head 'gaussian'. Fit "
        "token_bridge to its latents: tvq fit TOKENIZER --quantizer token_bridge."
    )


def test_it_compiles():
    torch._dynamo.reset()
    quantizer, z = head().eval(), torch.randn(2, 5, 6)
    traced = torch.compile(quantizer, fullgraph=True, backend="eager")(z)
    torch.testing.assert_close(traced.z_q, quantizer(z).z_q)


def test_the_state_and_the_sizes():
    quantizer = head()
    twin = Gaussian(6, channels=3)
    twin.load_state_dict(quantizer.state_dict())
    z = torch.randn(3, 6)
    assert torch.equal(quantizer.eval()(z).z_q, twin.eval()(z).z_q)
    assert (quantizer.vocab_size, quantizer.bits_per_position, quantizer.num_codebooks) == (1, 0, 0)


@pytest.mark.parametrize(
    "outer",
    [
        {"name": "residual", "stages": {"repeat": 2, "of": {"name": "gaussian"}}},
        {"name": "grouped", "groups": {"repeat": 2, "of": {"name": "gaussian"}}},
        {"name": "perturbed", "inner": {"name": "gaussian"}},
        {"name": "multi_scale", "inner": {"name": "gaussian"}, "scales": [1, 2]},
    ],
    ids=lambda outer: outer["name"],
)
def test_it_is_no_part_of_another_head(outer):
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", outer, dim=6)
    assert str(error.value).endswith(
        ": expected parts with codes; got Gaussian, which is continuous. Use it alone."
    )


def test_missing_widths_are_named():
    with pytest.raises(ConfigError) as error:
        Gaussian()
    assert str(error.value) == "Gaussian: expected dim or channels; got neither. Set one of them."
