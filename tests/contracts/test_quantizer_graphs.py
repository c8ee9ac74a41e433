"""Heads as compiled and exported graphs."""

import pytest
import torch
from making import D, at, graphs, latents, make, same_draws
from torch import nn


@graphs
def test_it_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    head = make(name)
    z = latents(name, 2, 5).requires_grad_()
    out, grid = head(z), at(name, 5)
    (expected,) = torch.autograd.grad(out.z_q.square().sum() + out.loss, z)
    forward = torch.compile(head, fullgraph=True, backend="eager")
    same_draws()
    traced = forward(z)
    assert torch.equal(traced.indices, out.indices)
    torch.testing.assert_close(traced.z_q, out.z_q)
    torch.testing.assert_close(traced.loss, out.loss)
    (got,) = torch.autograd.grad(traced.z_q.square().sum() + traced.loss, z)
    torch.testing.assert_close(got, expected)
    torch._dynamo.reset()
    code = torch.compile(
        lambda x: head.decode(head.encode(x), grid), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(code(z.detach()), head.decode(head.encode(z), grid))


@pytest.mark.parametrize("name", ["lfq", "group_rvq"])
def test_a_compiled_mask_means_the_same(name):
    torch._dynamo.reset()
    head = make(name)
    z, mask = torch.randn(2, 5, D), torch.rand(2, 5) > 0.3
    masked = head(z, mask)
    traced = torch.compile(head, fullgraph=True, backend="eager")(z, mask)
    assert torch.equal(traced.indices, masked.indices)
    torch.testing.assert_close(traced.z_q, masked.z_q)
    torch.testing.assert_close(traced.loss, masked.loss)
    assert float(traced.terms["nonfinite"]) == 0


def test_it_compiles_to_machine_code():
    torch._dynamo.reset()
    head = make("fsq_natural").eval()
    z = torch.randn(2, 5, D)
    out = head(z)
    with torch.no_grad():
        traced = torch.compile(head, fullgraph=True)(z)
    assert torch.equal(traced.indices, out.indices)
    assert torch.equal(traced.z_q, out.z_q)


def test_many_training_steps_of_a_compiled_head_do_not_recompile():
    torch._dynamo.reset()
    head = make("vq")
    step = torch.compile(head, fullgraph=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            step(torch.randn(2, 5, D))


class Method(nn.Module):
    """Export takes modules; this makes one of a method."""

    def __init__(self, head, method, grid):
        super().__init__()
        self.head, self.method, self.grid = head, method, grid

    def forward(self, x):
        if self.method == "decode":
            return self.head.decode(x, self.grid)
        out = self.head(x)
        return out.z_q, out.indices, self.head.encode(x)


@graphs
def test_it_exports_with_a_dynamic_batch(name):
    torch._dynamo.reset()
    head = make(name).eval()
    batch = torch.export.Dim("batch", min=1, max=512)
    z, grid = latents(name, 3, 4), at(name, 4)
    indices = head.encode(z)
    for method, example in (("decode", indices), ("forward", z)):
        program = torch.export.export(
            Method(head, method, grid), (example,), dynamic_shapes=({0: batch},), strict=False
        )
        for x in (example, torch.cat([example, example[:2]])):
            expected, got = Method(head, method, grid)(x), program.module()(x)
            torch.testing.assert_close(got, expected)
