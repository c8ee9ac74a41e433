"""Where the gradients of a head go."""

import pytest
import torch
from making import CASES, IDENTITY, heads, latents, make, reaching


@reaching
def test_a_recomputed_forward_is_the_same(name):
    head = make(name)
    z = latents(name, 3, 5).requires_grad_()
    out = torch.utils.checkpoint.checkpoint(lambda x: head(x).z_q, z, use_reentrant=False)
    g = torch.randn_like(out)
    (again,) = torch.autograd.grad(out, z, g)
    (once,) = torch.autograd.grad(head(z).z_q, z, g)
    assert torch.equal(again, once)


@pytest.mark.parametrize("name", IDENTITY)
def test_the_estimator_has_identity_gradient(name):
    z = latents(name, 3, 5).requires_grad_()
    g = torch.randn_like(z)
    make(name)(z).z_q.backward(g)
    assert torch.equal(z.grad, g)


@reaching
def test_codes_that_were_not_chosen_learn_from_the_output_only_where_promised(name):
    head = make(name)
    z = latents(name, 1, 2).requires_grad_()
    out = head(z)
    out.z_q.square().sum().backward()
    table = dict(head.named_parameters()).get("codebook")
    grad = None if table is None else table.grad
    reached = 0 if grad is None else int((grad.abs().sum(-1) > 0).sum())
    chosen = out.indices.numel() if head.on_grid else out.indices.unique().numel()
    assert (reached > chosen) == CASES[name].soft


@heads
def test_gradients_reach_the_encoder_and_every_parameter(name):
    head = make(name)
    z = 0.5 * latents(name, 4, 30)
    z.requires_grad_()
    out = head(z)
    (out.z_q.square().sum() + out.loss).backward()
    if CASES[name].sealed:
        assert z.grad is None or bool((z.grad == 0).all())
    else:
        assert float(z.grad.abs().sum()) > 0
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all())
