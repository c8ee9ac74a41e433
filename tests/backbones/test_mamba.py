"""Mixers with the names and shapes of mamba-ssm, against the equations step by step."""

import pytest
import torch
from reference import mamba as reference
from reference.mamba import wave
from torch.nn import functional as F

from tokenizers_vq.backbones.mamba import Mamba1Mixer, Mamba2Mixer
from tokenizers_vq.errors import ConfigError

# names and shapes of the package's mixers at d_model 192, 256 and of VideoMamba's at 192
MAMBA1 = {
    "A_log": (384, 16), "D": (384,), "in_proj.weight": (768, 192), "conv1d.weight": (384, 1, 4),
    "conv1d.bias": (384,), "x_proj.weight": (44, 384), "dt_proj.weight": (384, 12),
    "dt_proj.bias": (384,), "out_proj.weight": (192, 384),
}  # fmt: skip
MAMBA2 = {
    "dt_bias": (8,), "A_log": (8,), "D": (8,), "in_proj.weight": (1288, 256),
    "conv1d.weight": (768, 1, 4), "conv1d.bias": (768,), "norm.weight": (512,),
    "out_proj.weight": (256, 512),
}  # fmt: skip
VIDEO = MAMBA1 | {
    "A_b_log": (384, 16), "D_b": (384,), "conv1d_b.weight": (384, 1, 4), "conv1d_b.bias": (384,),
    "x_proj_b.weight": (44, 384), "dt_proj_b.weight": (384, 12), "dt_proj_b.bias": (384,),
}  # fmt: skip


def weights(shapes):
    """Weights of every key, of a size at which states matter."""
    torch.manual_seed(0)
    state = {key: 0.1 * torch.randn(shape) for key, shape in shapes.items()}
    for key, value in state.items():
        if key.endswith("_log"):
            value.uniform_()
        if key.startswith(("D", "norm")):
            value.add_(1)
    return state


def double(state):
    return {key: value.double() for key, value in state.items()}


def test_mamba_ssm_weights_of_mamba_1_give_equal_outputs():
    state, x = weights(MAMBA1), torch.randn(2, 70, 192)
    mixer = Mamba1Mixer(192)
    mixer.load_state_dict(state, strict=True)
    wide = double(state)
    expected = F.linear(reference.mamba1(wide, x.double()), wide["out_proj.weight"])
    torch.testing.assert_close(mixer(x).double(), expected, rtol=1e-4, atol=1e-5)


def test_mamba_ssm_weights_of_mamba_2_give_equal_outputs():
    state, x = weights(MAMBA2), torch.randn(2, 70, 256)
    mixer = Mamba2Mixer(256)
    mixer.load_state_dict(state, strict=True)
    expected = reference.mamba2(double(state), x.double(), 64, 1)
    torch.testing.assert_close(mixer(x).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("average", [True, False])
def test_weights_of_videomamba_use_both_directions(average):
    state, x = weights(VIDEO), torch.randn(1, 30, 192)
    mixer = Mamba1Mixer(192, bidirectional=True, average=average)
    mixer.load_state_dict(state, strict=True)
    wide = double(state)
    y = reference.mamba1(wide, x.double()) + reference.mamba1(wide, x.double(), "_b", flip=True)
    expected = F.linear(y * (0.5 if average else 1), wide["out_proj.weight"])
    torch.testing.assert_close(mixer(x).double(), expected, rtol=1e-4, atol=1e-5)


def test_the_stored_values_of_mamba_1():
    mixer = Mamba1Mixer(4, states=3).double()
    for j, (key, value) in enumerate(_in_order(mixer, MAMBA1)):
        if j > 1:
            value.data = wave(value.shape, 0.37, j, 0.3)
        assert key == list(MAMBA1)[j]
    y = mixer(wave((1, 5, 4), 0.5, 0))[0]
    expected = {
        0: [-0.004862373, 0.006391138, -0.007709727, 0.008774779],
        1: [-0.002966509, 0.003422232, -0.003765422, 0.003984782],
        4: [-0.007017728, 0.008232236, -0.009176021, 0.009818051],
    }
    for t, row in expected.items():
        assert y[t].tolist() == pytest.approx(row, rel=1e-5)


def test_the_stored_values_of_mamba_2():
    mixer = Mamba2Mixer(4, states=3, head=4).double()
    with torch.no_grad():
        for j, (key, value) in enumerate(_in_order(mixer, MAMBA2)):
            if key == "A_log":
                value.copy_(torch.tensor([1.0, 2.0]).log())
            elif key != "D":
                value.copy_(wave(value.shape, 0.37, j, 0.3, offset=float(key == "norm.weight")))
    y = mixer(wave((1, 8, 4), 0.5, 0))[0].detach()
    assert y[0].tolist() == pytest.approx(
        [-0.2612319, 0.1702417, -0.07365296, -0.02535784], rel=1e-5
    )
    assert y[2].tolist() == pytest.approx([0.3083424, -0.4056420, 0.4896019, -0.5574611], rel=1e-5)
    assert float(y.sum()) == pytest.approx(-1.320817, rel=1e-5)
    assert float(y.abs().sum()) == pytest.approx(5.317465, rel=1e-6)


def _in_order(mixer, shapes):
    named = dict(mixer.named_parameters())
    assert set(named) == set(shapes)
    return [(key, named[key]) for key in shapes]


MIXERS = {
    "mamba1": lambda **options: Mamba1Mixer(6, states=3, **options),
    "mamba2": lambda **options: Mamba2Mixer(6, states=3, head=2, groups=2, **options),
}


@torch.no_grad()
@pytest.mark.parametrize("name", MIXERS)
def test_steps_give_what_the_whole_sequence_gives(name):
    mixer = MIXERS[name]()
    x = torch.randn(2, 75, 6)
    expected = mixer(x)
    state, parts = None, []
    for cut in (slice(0, 1), slice(1, 2), slice(2, 2), slice(2, 70), slice(70, 75)):
        y, state = mixer.advance(x[:, cut], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", MIXERS)
def test_one_direction_never_sees_the_future_and_two_do(name):
    x = torch.randn(1, 40, 6)
    other = torch.cat([x[:, :20], torch.randn(1, 20, 6)], 1)
    mixer = MIXERS[name]()
    assert torch.equal(mixer(x)[:, :20], mixer(other)[:, :20])
    both = MIXERS[name](bidirectional=True)
    assert not torch.allclose(both(x)[:, :20], both(other)[:, :20])


@torch.no_grad()
@pytest.mark.parametrize("name", MIXERS)
def test_equal_directions_commute_with_a_flip(name):
    mixer = MIXERS[name](bidirectional=True)
    named = dict(mixer.named_parameters())
    for key, value in named.items():
        back = key.replace("_log", "_b_log") if "_log" in key else key
        module, dot, leaf = key.partition(".")
        back = back if "_log" in key else f"{module}_b{dot}{leaf}"
        if back in named and key != "in_proj.weight":
            named[back].copy_(value)
    if name == "mamba2":
        named["in_proj_b.weight"].copy_(named["in_proj.weight"][-mixer.in_proj_b.out_features :])
    x = torch.randn(1, 9, 6)
    torch.testing.assert_close(mixer(x.flip(1)), mixer(x).flip(1))


@pytest.mark.parametrize("name", MIXERS)
def test_both_directions_learn(name):
    mixer = MIXERS[name](bidirectional=True)
    mixer(torch.randn(2, 9, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())


def test_wrong_options_are_named():
    with pytest.raises(ConfigError) as error:
        Mamba2Mixer(6, head=5)
    assert str(error.value) == (
        "Mamba2Mixer: expected heads that divide 12 channels, and groups that divide the heads; "
        "got heads of 5 and 1 groups. Correct the backbone config."
    )
    with pytest.raises(ConfigError) as error:
        Mamba1Mixer(4, bidirectional=True).advance(torch.zeros(1, 1, 4), None)
    assert str(error.value) == (
        "Mamba1Mixer: expected one direction to run in pieces; got two. Give it whole sequences."
    )
