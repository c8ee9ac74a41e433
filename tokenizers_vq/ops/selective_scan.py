"""The selective scan of Mamba-1 as an operation of torch: compiled where possible.

The op ``tokenizers_vq::selective_scan`` and the one of its gradients have a compiled CPU form in
``kernels/selective_scan/`` and, everywhere else or when nothing is compiled, the torch form of
``functional/selective_scan.py``. On a GPU the kernel of the package ``mamba_ssm`` is used if it is
installed and works: it is asked by calling it, since it imports also where it was not compiled.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenizers_vq.errors import MissingExtraError, ShapeError, unknown_name
from tokenizers_vq.functional import selective_scan as forms

Backend = Literal["auto", "torch", "compiled", "mamba_ssm"]
BACKENDS = ("auto", "torch", "compiled", "mamba_ssm")
SCAN = "(Tensor u, Tensor delta, Tensor a, Tensor b, Tensor c, Tensor state)"
GRADIENTS = f"(Tensor dy, Tensor dlast, {SCAN[1:].replace('state', 'starts')}"
THREE, SIX = "(Tensor, Tensor, Tensor)", "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"


def selective_scan(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None = None,
    *,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Return ``h C + skip u``, gated, and the last state; in float32 also under autocast.

    Args:
        u: ``(B, L, D)``, any length.
        delta: ``(B, L, D)``, step sizes before the softplus, with their bias.
        a: ``(D, N)``, negative.
        b: ``(B, L, N)``.
        c: ``(B, L, N)``.
        state: ``(B, D, N)``, what was before the first step; None for zeros.
        skip: ``(D,)``, weight of the input itself; None for 0.
        gate: ``(B, L, D)``; the output is multiplied by its SiLU. None for no gate.
        backend: ``torch`` for the torch form, ``mamba_ssm`` for that package, ``compiled`` for our
            kernels, ``auto`` for the fastest that works.

    Returns:
        ``y (B, L, D)`` of the dtype of ``u`` and the state ``(B, D, N)``.

    Raises:
        ShapeError: the shapes do not go together.
        ConfigError: there is no such backend.
        MissingExtraError: the backend is not installed or does not work.
    """
    _check(u, delta, a, b, c, state)
    if backend not in BACKENDS:
        raise unknown_name("selective_scan backend", backend, BACKENDS)
    kind, wide = u.dtype, torch.float64 if u.dtype == torch.float64 else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        u, delta, a, b, c = (x.to(wide) for x in (u, delta, a, b, c))
        theirs = _theirs(backend, u.device.type) if state is None else None
        if theirs is not None:
            y, last = theirs(u, delta, a, b, c)
        else:
            step = F.softplus(delta)
            if state is None:
                state = u.new_zeros(u.shape[0], *a.shape)
            y, last = _ours(backend, u, step, a, b, c, state.to(wide))
        y = y if skip is None else y + skip.to(wide) * u
        y = y if gate is None else y * F.silu(gate.to(wide))
    return y.to(kind), last


def compiled() -> bool:
    """Whether the CPU kernels of the scan are compiled and loaded."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(_OP, "CPU"))


_OP = "tokenizers_vq::selective_scan"


def _ours(backend: str, u: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    if backend == "mamba_ssm":
        raise MissingExtraError(
            "selective_scan: expected no first state with backend 'mamba_ssm', which has no place "
            "for one; got one. Use backend='auto'."
        )
    if backend == "compiled" and not (compiled() and u.device.type == "cpu"):
        raise MissingExtraError(
            "selective_scan: expected a compiled kernel for backend 'compiled'; got none for "
            f"{u.device.type}. Run python kernels/build.py, or use backend='auto'."
        )
    # the kernels are of float32; nothing else may reach them
    plain = backend == "torch" or u.dtype != torch.float32
    if not u.shape[1]:
        return u, rest[-1]
    op = torch.ops.tokenizers_vq.selective_scan_torch if plain else None
    op = op or torch.ops.tokenizers_vq.selective_scan
    y, last, _ = op(u, *rest)
    return y, last


def _theirs(backend: str, device: str) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Return the scan of ``mamba_ssm`` where it should run; None for ours."""
    if backend == "mamba_ssm" or (backend == "auto" and device == "cuda"):
        found = _mamba_ssm(device)
        if found is None and backend == "mamba_ssm":
            raise MissingExtraError(
                "selective_scan: expected mamba_ssm to run on this machine; got an import or a "
                f"call that fails on {device}. Use backend='auto'."
            )
        return found
    return None


@functools.cache
def _mamba_ssm(device: str) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Return the package's scan in our layout, or None unless a call of it works and is right."""
    try:
        module: Any = importlib.import_module("mamba_ssm.ops.selective_scan_interface")

        def run(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Any:
            parts = (x.mT.contiguous() for x in (u, delta))
            y, last = module.selective_scan_fn(
                *parts, a, b.mT.contiguous(), c.mT.contiguous(),
                delta_softplus=True, return_last_state=True,
            )  # fmt: skip
            return y.mT, last

        u = torch.linspace(-1, 1, 12, device=device).reshape(1, 3, 4)
        a, b = -torch.ones(4, 2, device=device), torch.ones(1, 3, 2, device=device)
        y, _ = run(u, u, a, b, b)
        expected = selective_scan(u, u, a, b, b, backend="torch")[0]
        return run if torch.allclose(y, expected, atol=1e-4) else None
    except Exception:  # a package that was built without its kernels raises almost anything
        return None


def _check(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor | None) -> None:
    fits = u.ndim == 3 and a.ndim == 2 and delta.shape == u.shape and a.shape[0] == u.shape[-1]
    rows = (*u.shape[:2], a.shape[-1])
    fits = fits and tuple(b.shape) == tuple(c.shape) == rows
    if not fits or (state is not None and tuple(state.shape) != (u.shape[0], *a.shape)):
        shapes = ", ".join(str(tuple(x.shape)) for x in (u, delta, a, b, c))
        more = "" if state is None else f" and a state {tuple(state.shape)}"
        raise ShapeError(
            "selective_scan: expected u and delta (B, L, D), a (D, N), b and c (B, L, N) and a "
            f"state (B, D, N); got {shapes}{more}. Time is the second axis."
        )


def _scan_shapes(u: Tensor, delta: Tensor, a: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    chunks = -(-u.shape[1] // forms.CHUNK)
    last = u.new_empty(u.shape[0], *a.shape)
    return torch.empty_like(u), last, u.new_empty(chunks, *last.shape)


def _gradient_shapes(dy: Tensor, dlast: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    return (*(torch.empty_like(x) for x in parts[:5]), torch.empty_like(dlast))


def _gradients(dy: Tensor, dlast: Tensor, *parts: Tensor) -> forms.Six:
    return forms.scan_gradients((dy, dlast), *parts)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*inputs[:5], output[2])


def _backward(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None, _: Tensor | None) -> Any:
        u, *parts, starts = ctx.saved_tensors
        dy = torch.zeros_like(u) if dy is None else dy.contiguous()
        dlast = torch.zeros_like(starts[0]) if dlast is None else dlast.contiguous()
        return getattr(torch.ops.tokenizers_vq, name)(dy, dlast, u, *parts, starts)

    return backward


def register() -> None:
    """Declare the ops to torch, once per process; ``_torch`` ones never reach a kernel."""
    for tail in ("", "_torch"):
        scan, gradients = f"selective_scan{tail}", f"selective_scan_gradients{tail}"
        for name, schema, form, shapes in (
            (scan, f"{SCAN} -> {THREE}", forms.scan, _scan_shapes),
            (gradients, f"{GRADIENTS} -> {SIX}", _gradients, _gradient_shapes),
        ):
            op = f"tokenizers_vq::{name}"
            torch.library.define(op, schema)
            torch.library.impl(op, "CompositeExplicitAutograd", form)
            torch.library.register_fake(op, shapes)
        torch.library.register_autograd(
            f"tokenizers_vq::{scan}", _backward(gradients), setup_context=_remember
        )


register()
