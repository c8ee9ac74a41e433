import math

import pytest
import torch
from golden import close
from vector_quantize_pytorch.finite_scalar_perturbation import FSP as Theirs

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.fsp import FSP, TARGETS

INVERSE = {
    "tanh": lambda p: torch.atanh(2 * p - 1),
    "sigmoid": torch.logit,
    "normal": lambda p: torch.erfinv(2 * p - 1) * math.sqrt(2),
    "laplace": lambda p: torch.where(p < 0.5, (2 * p).log(), -(2 - 2 * p).log()),
    "cauchy": lambda p: torch.tan((p - 0.5) * math.pi),
}


@pytest.mark.parametrize(
    ("z", "code", "index"),
    [
        ([0.0, 0.0], [0.216506, 0], 20),
        ([0.2, -0.7], [0.216506, -1.385641], 4),
        ([3.0, -3.0], [1.515545, -1.385641], 7),
    ],
)
def test_golden_evaluation(z, code, index):
    out = FSP(levels=(8, 5)).eval()(torch.tensor([z]))
    close(out.z_q[0], code)
    assert int(out.indices) == index


@pytest.mark.parametrize("cdf", TARGETS)
def test_every_index_is_its_own_code(cdf):
    head = FSP(levels=(8, 5, 2), cdf=cdf).eval()
    indices = torch.arange(80)[:, None]
    p = head.decode(indices) * 12**-0.5 + 0.5
    assert torch.equal(head.encode(INVERSE[cdf](p)), indices)


@pytest.mark.parametrize("cdf", TARGETS)
@pytest.mark.parametrize("level", [2, 3, 1001, 4096])
def test_both_ends_are_reached_and_never_passed(cdf, level):
    head = FSP(levels=(level,), cdf=cdf)
    z = torch.tensor([[-1e18], [1e18]])
    assert head.encode(z).flatten().tolist() == [0, level - 1]


@pytest.mark.parametrize("cdf", TARGETS)
def test_latents_of_that_distribution_use_all_levels_alike_and_come_out_with_unit_variance(cdf):
    torch.manual_seed(0)
    head = FSP(levels=(8,), cdf=cdf).eval()
    z = INVERSE[cdf](torch.rand(40_000, 1) * (1 - 2e-6) + 1e-6)
    out = head(z)
    shares = out.indices.flatten().bincount() / 40_000
    close(shares, [1 / 8] * 8, atol=0.008)
    close(out.z_q.var(), 1 - 1 / 64, atol=0.01)


@pytest.mark.parametrize("cdf", sorted(set(TARGETS) - {"cauchy"}))
def test_the_moments_of_that_distribution_cost_nothing(cdf):
    grid = (torch.arange(400_000) + 0.5) / 400_000
    z = INVERSE[cdf](grid.double()).float()[:, None]
    head = FSP(levels=(8,), cdf=cdf, moment_weights=[1.0, 1.0, 1.0, 1.0])
    assert float(head(z).loss.detach()) < 1e-3
    assert float(head(z + 1).loss.detach()) > 0.9


def test_noise_is_uniform_one_level_wide_and_stays_inside():
    torch.manual_seed(0)
    head = FSP(levels=(4, 16))
    p = torch.rand(20_000, 2) * 0.5 + 0.25
    noise = (head(torch.atanh(2 * p - 1)).z_q * 12**-0.5 + 0.5 - p) * torch.tensor([4.0, 16.0])
    assert float(noise.abs().max()) <= 0.5 + 1e-4
    close(noise.var(0), [1 / 12, 1 / 12], atol=0.003)
    edge = head(torch.full((1000, 2), 5.0)).z_q
    assert float(edge.max()) <= 0.5 * math.sqrt(12)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_rate_is_the_share_of_rounded_values(rate):
    torch.manual_seed(0)
    head, z = FSP(levels=(4, 16), quantize_rate=rate), torch.randn(8000, 2)
    out = head(z)
    rounded = (out.z_q == head.decode(out.indices)).float().mean()
    assert float(rounded) == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_the_gradient_is_that_of_the_distribution_function(rate):
    z = torch.randn(50, 2, requires_grad=True)
    FSP(levels=(4, 16), quantize_rate=rate)(z).z_q.sum().backward()
    expected = (1 - z.detach().tanh().square()) / 2 * math.sqrt(12)
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize(("cdf", "norm"), [("tanh", "var_tanh"), ("normal", "kurt")])
def test_values_and_loss_agree_with_vector_quantize_pytorch(cdf, norm):
    z = torch.randn(300, 3)
    quantized, index, loss, _ = Theirs([8, 5, 4], act_name=cdf, vector_norm=norm).eval()(z)
    weights = [0.1, 0.07, 0, 0] if norm == "var_tanh" else [0.1, 0.07, 0.06, 0.05]
    ours = FSP(levels=(8, 5, 4), cdf=cdf, moment_weights=weights).eval()(z)
    assert torch.equal(ours.indices[:, 0], index.long())
    torch.testing.assert_close(ours.z_q, quantized)
    torch.testing.assert_close(ours.loss, loss, atol=1e-5, rtol=1e-4)  # theirs rounds pi^2 / 12


def test_a_distribution_without_moments_has_no_regulariser():
    out = FSP(levels=(4,), cdf="cauchy")(torch.randn(20, 1))
    assert float(out.loss) == 0
    assert set(out.terms) == {"nonfinite"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (8, 1)}, "FSP: levels must be at least 2 each; got (8, 1)."),
        (
            {"levels": 8},
            "FSP: expected levels, a list of whole numbers; got 8. "
            "Give one per channel, as in [8, 5, 5].",
        ),
        (
            {"levels": (8,), "cdf": "gumbel"},
            "FSP cdf: there is no 'gumbel'; choose one of cauchy, laplace, normal, sigmoid, tanh.",
        ),
        (
            {"levels": (8,), "quantize_rate": 1.2},
            "FSP: expected quantize_rate in 0..1; got 1.2. It is a probability.",
        ),
        (
            {"levels": (8,), "moment_weights": [1.0]},
            "FSP: expected four moment_weights; got 1. "
            "Give one for each of mean, variance, skewness, kurtosis.",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError) as error:
        FSP(**options)
    assert str(error.value) == message
