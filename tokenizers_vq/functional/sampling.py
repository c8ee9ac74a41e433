"""Codes drawn at random, near ones more often."""

import torch
from torch import Tensor

from tokenizers_vq.functional.nearest import CHUNK


@torch.no_grad()
def sample_codes(x: Tensor, codebook: Tensor, temperature: float, chunk: int = CHUNK) -> Tensor:
    """Return one index per row, drawn from ``softmax_k(-|x - e_k|^2 / temperature)``.

    Draws by adding Gumbel noise to the logits and taking the largest, so no probabilities are
    normalised or stored. Random numbers come from torch's global generator.

    Args:
        x: ``(N, d)`` float32, any number of rows.
        codebook: ``(K, d)`` float32. For unit vectors the distance is twice one minus the cosine.
        temperature: above 0.
        chunk: at most this many logits exist at a time.

    Returns:
        ``(N,)`` int64.
    """
    squares = codebook.square().sum(-1)
    rows = max(1, x.shape[0] if torch.compiler.is_compiling() else chunk // codebook.shape[0])
    parts = [
        _draw(torch.addmm(-squares, part, codebook.T, alpha=2).div_(temperature))
        for part in torch.split(x, rows)
    ]
    return torch.cat(parts)


def _draw(logits: Tensor) -> Tensor:
    waits = torch.empty_like(logits).exponential_()  # minus its logarithm is Gumbel noise
    return logits.sub_(waits.log_()).argmax(1)
