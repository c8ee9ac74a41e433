import pytest
import torch
from reference import mamba as reference
from reference.mamba import wave
from torch.nn import functional as F

from tokenizers_vq.functional import ssd as module
from tokenizers_vq.functional.ssd import ssd


def case(batch, length, heads, width, groups, states):
    torch.manual_seed(0)
    x = torch.randn(batch, length, heads, width, dtype=torch.float64)
    decay = -2 * torch.rand(batch, length, heads, dtype=torch.float64)
    b, c = torch.randn(2, batch, length, groups, states, dtype=torch.float64)
    return x, decay, b, c, torch.randn(batch, heads, width, states, dtype=torch.float64)


def sequential(x, decay, b, c, state):
    each = x.shape[2] // b.shape[2]
    return reference.ssd(x, decay, *(m.repeat_interleave(each, 2) for m in (b, c)), state)


SIZES = [(1, 1, 1, 1, 1, 1), (2, 2, 4, 3, 2, 4), (1, 16, 2, 2, 1, 16), (2, 17, 2, 4, 2, 1),
         (1, 64, 2, 2, 1, 4), (1, 65, 2, 2, 1, 4), (1, 400, 2, 2, 1, 2),
         (1, 100, 1, 33, 1, 2)]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_sequential_scan(size, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 600)  # the longest one in segments
    inputs = case(*size)
    weight = torch.randn(inputs[0].shape, dtype=torch.float64)
    found = []
    for function, kind in ((sequential, torch.float64), (ssd, torch.float64), (ssd, torch.float32)):
        given = [x.to(kind).requires_grad_() for x in inputs]
        given = [x.detach().requires_grad_() for x in given]
        y, h = function(*given)
        grads = torch.autograd.grad((y * weight.to(kind)).sum() + h.sum(), given)
        found.append([y.detach(), h.detach(), *grads])
    for got, bound in ((found[1], 1e-12), (found[2], 1e-5)):
        for mine, theirs in zip(got, found[0], strict=True):
            assert (mine - theirs).abs().max() <= bound * max(theirs.abs().max(), 1)


def test_the_stored_values():
    x = wave((1, 8, 2, 2), 0.7, 0.1)
    decay = -F.softplus(wave((1, 8, 2), 0.9, 0.2))
    b, c = wave((1, 8, 2, 3), 1.1, 0.3), wave((1, 8, 2, 3), 1.3, 0.4)
    y, last = ssd(x, decay, b, c)
    assert float(y.sum()) == pytest.approx(0.1096793, rel=1e-5)
    assert float(y.abs().sum()) == pytest.approx(14.12424, rel=1e-6)
    expected = [0.1174813, 0.02652917, 0.4070222, -0.7244187, -0.3026550, 1.128795, -0.3316322,
                -0.7087588]  # fmt: skip
    assert y[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-6)
    state = [0.2993638, -0.2763075, -0.5500278, 0.4182188, -0.3816000, -0.7644033]
    assert last[0, 0].flatten().tolist() == pytest.approx(state, rel=1e-6)


def test_it_goes_on_from_its_state():
    x, decay, b, c, h = (v.float() for v in case(2, 150, 4, 3, 2, 5))
    whole, last = ssd(x, decay, b, c, h)
    parts = []
    for cut in (slice(0, 1), slice(1, 1), slice(1, 98), slice(98, 150)):
        y, h = ssd(x[:, cut], decay[:, cut], b[:, cut], c[:, cut], h)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(h, last, rtol=1e-5, atol=1e-5)


def test_fast_and_slow_decays_stay_finite():
    x, decay, b, c, h = (v.float() for v in case(1, 200, 2, 2, 1, 2))
    for scale in (100.0, 0.0):
        inputs = [v.clone().requires_grad_() for v in (x, decay * scale, b, c, h)]
        y, last = ssd(*inputs)
        (y.sum() + last.sum()).backward()
        assert all(v.isfinite().all() for v in (y, last, *(v.grad for v in inputs)))


def test_autocast_does_not_reach_it():
    inputs = [v.float() for v in case(1, 40, 2, 4, 1, 4)]
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = ssd(*inputs)
    assert torch.equal(y, ssd(*inputs)[0])
