"""Loads the compiled kernels, if there are any, and says which of them run and why."""

import importlib
import os
from dataclasses import dataclass

OVERRIDE = "TOKENIZERS_VQ_ISA"
CUDA_OVERRIDE = "TOKENIZERS_VQ_CUDA"  # torch, float32, bfloat16 or triton
TORCH = "torch"  # as an override: do not load the kernels at all
TRITON = "triton"  # as an override for CUDA: compile the searches when they are first called


@dataclass(frozen=True)
class Kernels:
    """What was loaded: the CPU kernels that this machine can run, or the reason for none."""

    names: tuple[str, ...]
    preferred: str  # the one that usually is fastest here
    reason: str


def load() -> Kernels:
    """Import the compiled library; a library that does not load is a reason, not an error."""
    if os.environ.get(OVERRIDE) == TORCH:
        return Kernels((), TORCH, f"{OVERRIDE}={TORCH}")
    try:
        module = importlib.import_module("tokenizers_vq.ops._C")
    except ModuleNotFoundError:
        return Kernels((), TORCH, "not compiled; run: python kernels/build.py")
    except ImportError as error:
        return Kernels((), TORCH, f"the compiled library does not load: {error}")
    return Kernels(tuple(module.SUPPORTED.split()), module.PREFERRED, "")


def load_cuda() -> str:
    """Import what serves CUDA tensors: the compiled library, or Triton's searches if asked for.

    Returns:
        Why there is nothing, or an empty string.
    """
    for name in (OVERRIDE, CUDA_OVERRIDE):
        if os.environ.get(name) == TORCH:
            return f"{name}={TORCH}"
    if os.environ.get(CUDA_OVERRIDE) == TRITON:
        return _load_triton()
    try:
        importlib.import_module("tokenizers_vq.ops._C_cuda")
    except ModuleNotFoundError:
        return "not compiled; run: python kernels/build.py"
    except ImportError as error:
        return f"the compiled library does not load: {error}"
    return ""


def _load_triton() -> str:
    try:
        searches = importlib.import_module("tokenizers_vq.ops.nearest_code_triton")
    except ImportError as error:
        return f"{CUDA_OVERRIDE}={TRITON}, which does not load: {error}"
    searches.register()
    return ""


def active_cuda(reason: str) -> tuple[str, str]:
    """Return the name of the filter that runs on a GPU now, and why.

    Args:
        reason: what ``load_cuda`` returned.
    """
    if reason:
        return TORCH, reason
    if os.environ.get(CUDA_OVERRIDE) == TRITON:
        return TRITON, f"{CUDA_OVERRIDE}={TRITON}; code_stats in torch"
    if os.environ.get(CUDA_OVERRIDE) == "float32":
        return "float32", f"{CUDA_OVERRIDE}=float32, up to 64 channels"
    return "bfloat16", "tensor cores filter, float64 decides"


def active(kernels: Kernels) -> tuple[str, str]:
    """Return the name of what runs on a CPU now, and why.

    Args:
        kernels: what ``load`` returned.
    """
    wish = os.environ.get(OVERRIDE)
    if not kernels.names:
        return TORCH, kernels.reason
    if wish in kernels.names:
        return wish, f"{OVERRIDE}={wish}"
    if wish is None:
        return kernels.preferred, "usually the fastest on this CPU"
    return (
        kernels.preferred,
        f"{OVERRIDE}={wish} is not one of {', '.join((TORCH, *kernels.names))} here",
    )
