import pytest
import torch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.dithered_fsq import DitheredFSQ
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.residual import Residual


@pytest.mark.parametrize(
    ("z", "code", "index"),
    [([0.3, -0.4], [0.25, -0.5], 27), ([2.0, -2.0], [1, -1], 16), ([0.0, 0.0], [0, 0], 42)],
)
def test_golden_evaluation(z, code, index):
    out = DitheredFSQ(levels=(17, 5)).eval()(torch.tensor([z]))
    assert (out.z_q[0].tolist(), int(out.indices)) == (code, index)


def ways(head, z):
    """The share of items that pass smooth, rounded and noisy."""
    out, smooth = head(z).z_q, z.tanh()
    rounded = head.decode(head.encode(z))
    is_smooth = (out - smooth).abs().amax((1, 2)) < 1e-6
    is_rounded = (out == rounded).all(-1).all(-1)
    return [
        float(kind.float().mean()) for kind in (is_smooth, is_rounded, ~is_smooth & ~is_rounded)
    ]


def test_a_quarter_of_the_items_is_smooth_a_quarter_rounded_and_half_noisy():
    torch.manual_seed(0)
    head, z = DitheredFSQ(levels=(5, 4)), torch.randn(4000, 3, 2)
    assert ways(head, z) == pytest.approx([0.25, 0.25, 0.5], abs=0.03)  # 4 sigma: 0.03


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"noise_dropout": 1.0, "rounding": 0.0}, [1, 0, 0]),
        ({"noise_dropout": 1.0, "rounding": 1.0}, [0, 1, 0]),
        ({"noise_dropout": 0.0}, [0, 0, 1]),
    ],
)
def test_probabilities_of_zero_and_one_leave_one_way(options, shares):
    assert ways(DitheredFSQ(levels=(5, 4), **options), torch.randn(50, 3, 2)) == shares


def test_the_noise_is_uniform_and_one_level_wide():
    torch.manual_seed(0)
    head, z = DitheredFSQ(levels=(5, 17), noise_dropout=0.0), torch.randn(20_000, 2)
    noise = (head(z).z_q - z.tanh()) * torch.tensor([4.0, 16.0]) / 2  # in levels
    assert float(noise.abs().max()) <= 0.5 + 1e-5
    close(noise.mean(0), [0, 0], atol=0.01)
    close(noise.var(0), [1 / 12, 1 / 12], atol=0.003)


def test_all_ways_have_the_gradient_of_the_bound_and_the_indices_of_the_codes():
    head = DitheredFSQ(levels=(5, 4))
    z = torch.randn(40, 3, 2, requires_grad=True)
    g = torch.randn(40, 3, 2)
    out = head(z)
    out.z_q.backward(g)
    torch.testing.assert_close(z.grad, g * (1 - z.detach().tanh().square()))
    assert torch.equal(out.indices, FSQ(levels=(5, 4), bound="symmetric").encode(z))


def test_noise_differs_between_two_forwards_and_follows_the_seed():
    head, z = DitheredFSQ(levels=(5, 4), noise_dropout=0.0), torch.randn(3, 7, 2)
    torch.manual_seed(3)
    first, second = head(z).z_q, head(z).z_q
    torch.manual_seed(3)
    assert torch.equal(head(z).z_q, first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("level", [2, 3, 4, 17, 256, 1000, 1001, 2001, 4095, 4096])
def test_every_level_is_its_own_code_and_both_ends_are_never_passed(level):
    head = DitheredFSQ(levels=(level,)).eval()
    indices = torch.arange(level)[:, None]
    codes = head.decode(indices).double()
    inner = torch.atanh(codes.clamp(-1 + 1e-7, 1 - 1e-7))
    assert torch.equal(head.encode(inner), indices)
    ends = head.encode(torch.tensor([[-1e18], [1e18], [-30.0], [30.0]]))
    assert ends.flatten().tolist() == [0, level - 1, 0, level - 1]


def test_a_stack_of_three_levels_replaces_seventeen_after_training():
    bounded = torch.rand(500, 6) * 2 - 1
    coarse = [FSQ(levels=(3,) * 6, bound="clamp") for _ in range(4)]
    stack = Residual(stages=coarse, stage_scale=0.5).eval()
    fine = DitheredFSQ(levels=(17,) * 6).eval()
    assert torch.equal(stack(bounded).z_q, fine(torch.atanh(bounded)).z_q)


@pytest.mark.parametrize("name", ["noise_dropout", "rounding"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_no_probability(name, value):
    with pytest.raises(ConfigError) as error:
        DitheredFSQ(levels=(5, 4), **{name: value})
    assert str(error.value) == (
        f"DitheredFSQ: expected {name} in 0..1; got {value}. It is a probability."
    )
