"""Which positions count: masks, and tokens that are not finite."""

import pytest
import torch
from making import CASES, NOISY, UNMASKED, D, heads, latents, make, maskable, state, unchanged

from tokenizers_vq.errors import ShapeError


@maskable
def test_masked_is_the_call_on_the_valid_positions(name):
    head, twin = make(name), make(name)
    if name in NOISY:  # gathered positions are other items, and draw other numbers
        head.eval(), twin.eval()
    mask = torch.rand(4, 9) > 0.4
    z = torch.randn(4, 9, D)
    full, short = z.clone().requires_grad_(), z[mask].clone().requires_grad_()
    a, b = head(full, mask), twin(short)
    assert torch.equal(a.z_q[mask], b.z_q)
    assert torch.equal(a.indices[mask], b.indices)
    assert bool((a.z_q[~mask] == 0).all())
    assert bool((a.indices[~mask] == -1).all())
    assert torch.equal(a.loss, b.loss)
    assert a.terms.keys() == b.terms.keys()
    for key in a.terms:
        assert torch.equal(a.terms[key], b.terms[key])
    g = torch.randn(4, 9, D)
    ((a.z_q * g).sum() + a.loss).backward()
    ((b.z_q * g[mask]).sum() + b.loss).backward()
    assert torch.equal(full.grad[mask], short.grad)
    assert bool((full.grad[~mask] == 0).all())
    head.train().update(z, a.indices)
    twin.train().update(z[mask], b.indices)
    assert unchanged(head, state(twin))
    head.eval()
    out = head(z, mask)
    assert torch.equal(head.encode(z, mask), out.indices)
    assert torch.equal(head.decode(out.indices), out.z_q)


@maskable
def test_nothing_valid(name):
    out = make(name)(torch.randn(2, 3, D), torch.zeros(2, 3, dtype=torch.bool))
    assert bool((out.indices == -1).all())
    assert bool((out.z_q == 0).all())
    assert float(out.loss.detach()) == 0


@pytest.mark.parametrize("name", UNMASKED)
def test_a_mask_is_refused_where_it_has_no_meaning(name):
    head, z = make(name), latents(name, 2, 8)
    mask = torch.ones(z.shape[:-1], dtype=torch.bool)
    for call in (head, head.encode):
        with pytest.raises(ShapeError) as error:
            call(z, mask)
        expected = f"{type(head).__name__}: expected no mask; got one of shape {tuple(mask.shape)}."
        assert str(error.value).startswith(expected)


@heads
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_tokens_that_are_not_finite_disturb_nobody(name, poison):
    head, twin = make(name), make(name)
    z = latents(name, 2, 8)
    bad = torch.zeros(z.shape[:-1], dtype=torch.bool)
    bad.view(2, -1)[0, 3] = bad.view(2, -1)[1, 7] = True
    poisoned = z.clone()
    poisoned[bad, 1] = poison
    poisoned.requires_grad_()
    if name in NOISY:  # fewer rows draw other numbers
        head.eval(), twin.eval()
    if CASES[name].masks:
        out, clean = head(poisoned), twin(z, ~bad)
        assert torch.equal(out.indices[~bad], clean.indices[~bad])
        torch.testing.assert_close(out.z_q[~bad], clean.z_q[~bad])
        torch.testing.assert_close(out.loss, clean.loss)
    else:  # a token may stand for several positions: they have zeros at the bad ones
        out, clean = head(poisoned), twin(torch.where(bad[..., None], 0.0, z))
        assert torch.equal(out.indices, clean.indices)
        assert torch.equal(out.z_q, clean.z_q)
        assert bool(torch.isfinite(out.loss))
    sizes = torch.tensor(head.codebook_sizes)
    assert bool(((out.indices >= 0) & (out.indices < sizes)).all())
    assert bool(torch.isfinite(out.z_q).all())
    assert float(out.terms["nonfinite"]) == 2
    (out.z_q.sum() + out.loss).backward()
    if not CASES[name].sealed:
        assert bool(torch.isfinite(poisoned.grad).all())
        assert bool((poisoned.grad[bad] == 0).all())
    for parameter in head.parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())
    head.train().update(poisoned, out.indices)
    assert all(bool(torch.isfinite(value).all()) for value in head.state_dict().values())
    counted = [value for key, value in head.state_dict().items() if key.endswith("nonfinite")]
    assert all(float(value) == 2 for value in counted if head.has_state)
