"""The heads that contract tests make, and small things that they do with them."""

import pytest
import torch
from cases import D, all_cases

from tokenizers_vq import registry

CASES = all_cases()
HEADS = {name: case.config for name, case in CASES.items()}
FIXED_POINT = [name for name, case in CASES.items() if case.fixed_point]
IDENTITY = [name for name, case in CASES.items() if case.identity]
GRAPHS = [name for name, case in CASES.items() if case.graph]
MASKS = [name for name, case in CASES.items() if case.masks]
NOISY = {name for name, case in CASES.items() if case.noisy}
UNMASKED = [name for name, case in CASES.items() if not case.masks]
REACHING = [name for name, case in CASES.items() if not case.sealed]
GRIDS = [(), (7,), (4, 4), (2, 3, 2), (2, 2, 1, 2), (0,), (0, 3)]
heads = pytest.mark.parametrize("name", HEADS)
graphs = pytest.mark.parametrize("name", GRAPHS)
maskable = pytest.mark.parametrize("name", MASKS)
reaching = pytest.mark.parametrize("name", REACHING)


def at(name, *grid):
    """Return ``grid``, or the one that the head is bound to."""
    bound = CASES[name].item_shape
    return grid if bound is None else bound


def latents(name, batch, *grid):
    return torch.randn(batch, *at(name, *grid), D)


def same_draws(*_):
    """Let every forward of a noisy head draw the same numbers: then two of them can be compared."""
    if not torch.compiler.is_compiling():
        torch.manual_seed(2)


def make(name, dim=D):
    torch.manual_seed(1)
    head = registry.build("quantizer", HEADS[name], dim=dim)
    if name in NOISY:
        head.register_forward_pre_hook(same_draws)
    for part in head.modules():
        if "cluster_size" in dict(part.named_buffers(recurse=False)):
            with torch.no_grad():  # a spread codebook: tests need more than one code in use
                part.codebook.copy_(torch.randn_like(part.codebook))
                if part.metric == "cosine":
                    part.codebook.copy_(part.codes())
                if part.codebook_update == "ema":
                    part.cluster_sum.copy_(part.codebook)
    return head


def state(head):
    return {key: value.clone() for key, value in head.state_dict().items()}


def unchanged(head, before):
    after = head.state_dict()
    assert after.keys() == before.keys()
    return all(torch.equal(after[key], before[key]) for key in before)
