import sys
import types

import pytest
import torch
from reference import mamba as reference
from reference.mamba import wave
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError, MissingExtraError, ShapeError
from tokenizers_vq.ops import selective_scan as ops
from tokenizers_vq.ops.selective_scan import selective_scan


def case(batch, length, width, states, seed=0):
    torch.manual_seed(seed)
    u, delta = torch.randn(2, batch, length, width, dtype=torch.float64)
    a = -3 * torch.rand(width, states, dtype=torch.float64) - 0.01
    b, c = torch.randn(2, batch, length, states, dtype=torch.float64)
    return u, delta, a, b, c, torch.randn(batch, width, states, dtype=torch.float64)


def run(function, inputs, weight):
    """Outputs and gradients."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y, h = function(*inputs)
    grads = torch.autograd.grad((y * weight.to(y)).sum() + h.sum(), inputs)
    return [y.detach(), h.detach(), *grads]


def sequential(u, delta, *rest):
    return reference.scan(u, F.softplus(delta), *rest)


SIZES = [(1, 1, 1, 1), (2, 2, 3, 4), (1, 15, 5, 16), (2, 64, 4, 1), (1, 65, 3, 4), (3, 129, 17, 2),
         (1, 17, 2, 64), (1, 300, 2, 4)]  # fmt: skip


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_sequential_scan(size, backend):
    inputs = case(*size)
    weight = torch.randn(inputs[0].shape, dtype=torch.float64)
    expected = run(sequential, inputs, weight)
    for kind, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        given = [x.to(kind) for x in inputs]
        got = run(lambda *x: selective_scan(*x, backend=backend), given, weight)
        for mine, theirs in zip(got, expected, strict=True):
            assert (mine - theirs).abs().max() <= bound * max(theirs.abs().max(), 1)


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_every_instruction_set_gives_the_same(isa, monkeypatch):
    inputs = case(2, 70, 21, 3)
    weight = torch.randn(inputs[0].shape, dtype=torch.float64)
    monkeypatch.setenv("TOKENIZERS_VQ_ISA", isa)  # one that is not there gives the usual one
    got = run(selective_scan, [x.float() for x in inputs], weight)
    for mine, theirs in zip(got, run(sequential, inputs, weight), strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * max(theirs.abs().max(), 1)


def test_the_stored_values():
    u, raw = wave((1, 3, 6), 0.7, 0.1).mT, wave((1, 3, 6), 0.9, 0.2, 0.5).mT
    b, c = wave((1, 2, 6), 1.1, 0.3).mT, wave((1, 2, 6), 1.3, 0.4).mT
    gate = wave((1, 3, 6), 0.6, 0.5).mT
    a = -torch.tensor([[0.5], [1.0], [1.5]]).double() * torch.tensor([[1.0, 2.0]])
    skip, bias = torch.tensor([1, 0.5, -0.25]).double(), torch.tensor([-0.5, 0, 0.5]).double()
    y, last = selective_scan(u, raw + bias, a, b, c, skip=skip, gate=gate)
    rows = torch.tensor(
        [[0.03955273, 0.7321807, 0.4689938, 0.2337146, 0.002543838, 0.04792151],
         [0.1976177, 0.3205978, 0.02121022, -0.05722267, 0.04635640, -0.05293653],
         [0.1189949, 0.09692844, 0.06921475, 0.02117630, -0.06488747, -0.1494688]]
    )  # fmt: skip
    torch.testing.assert_close(y[0].mT.float(), rows, rtol=1e-5, atol=1e-7)
    states = torch.tensor(
        [[0.2645310, -0.04862271], [-0.6489736, -0.2737574], [0.5300468, 0.1444794]]
    )
    torch.testing.assert_close(last[0].float(), states, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_scan_goes_on_from_its_state(backend):
    u, delta, a, b, c, h = (x.float() for x in case(2, 150, 5, 4))
    whole, last = selective_scan(u, delta, a, b, c, h, backend=backend)
    parts = []
    for cut in (slice(0, 1), slice(1, 1), slice(1, 98), slice(98, 150)):
        y, h = selective_scan(u[:, cut], delta[:, cut], a, b[:, cut], c[:, cut], h, backend=backend)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(h, last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_fast_and_slow_decays_stay_finite(backend):
    u, delta, a, b, c, h = (x.float() for x in case(1, 70, 4, 4))
    for scale, shift in ((100.0, 5.0), (1e-6, -60.0)):
        inputs = [x.clone().requires_grad_() for x in (u, delta + shift, a * scale, b, c, h)]
        y, last = selective_scan(*inputs, backend=backend)
        (y.sum() + last.sum()).backward()
        assert all(x.isfinite().all() for x in (y, last, *(x.grad for x in inputs)))


def test_half_precision_keeps_its_state_in_float32():
    inputs = [x.float() for x in case(1, 80, 8, 4)]
    expected, _ = selective_scan(*inputs)
    half = [x.bfloat16() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        y, last = selective_scan(*half)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert (y - expected).abs().mean() < 5e-3 * expected.abs().max()


def test_torch_knows_the_op():
    u, delta, a, b, c, h = (x.float() for x in case(1, 3, 2, 2))
    for name in ("selective_scan", "selective_scan_torch"):
        op = getattr(torch.ops.tokenizers_vq, name).default
        inputs = [x.clone().requires_grad_() for x in (u, delta.exp(), a, b, c, h)]
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(op, inputs, test_utils=tests)


def fake_package(monkeypatch, function):
    module = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = function
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ops._mamba_ssm.cache_clear()


@pytest.fixture
def _forgotten():
    yield
    ops._mamba_ssm.cache_clear()


@pytest.mark.usefixtures("_forgotten")
def test_mamba_ssm_runs_where_a_call_of_it_works(monkeypatch):
    calls = []

    def right(u, delta, a, b, c, delta_softplus, return_last_state):
        calls.append(u.shape)
        y, h = reference.scan(u.mT, F.softplus(delta.mT), a, b.mT, c.mT)
        return y.mT, h

    fake_package(monkeypatch, right)
    inputs = [x.float() for x in case(2, 9, 3, 2)][:5]
    y, _ = selective_scan(*inputs, backend="mamba_ssm")
    assert calls[-1] == (2, 3, 9)
    torch.testing.assert_close(y, selective_scan(*inputs)[0], rtol=1e-4, atol=1e-5)
    count = len(calls)
    selective_scan(*inputs)  # on a CPU our own is faster
    assert len(calls) == count


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("wrong", [lambda *a, **k: 1 / 0, lambda u, *a, **k: (u, u)])
def test_mamba_ssm_that_imports_but_fails_is_not_used(monkeypatch, wrong):
    fake_package(monkeypatch, wrong)
    assert ops._mamba_ssm("cpu") is None
    inputs = [x.float() for x in case(1, 3, 2, 2)][:5]
    with pytest.raises(MissingExtraError) as error:
        selective_scan(*inputs, backend="mamba_ssm")
    assert str(error.value) == (
        "selective_scan: expected mamba_ssm to run on this machine; got an import or a call that "
        "fails on cpu. Use backend='auto'."
    )


def test_wrong_inputs_are_named():
    u, delta, a, b, c, h = case(1, 3, 2, 2)
    with pytest.raises(ShapeError) as error:
        selective_scan(u, delta, a, b[:, :2], c)
    assert str(error.value) == (
        "selective_scan: expected u and delta (B, L, D), a (D, N), b and c (B, L, N) and a state "
        "(B, D, N); got (1, 3, 2), (1, 3, 2), (2, 2), (1, 2, 2), (1, 3, 2). "
        "Time is the second axis."
    )
    with pytest.raises(ConfigError, match="there is no 'triton'; choose one of auto"):
        selective_scan(u, delta, a, b, c, backend="triton")
    with pytest.raises(MissingExtraError, match="which has no place for one"):
        selective_scan(u, delta, a, b, c, h, backend="mamba_ssm")
