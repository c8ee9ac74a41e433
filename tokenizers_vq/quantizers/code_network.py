"""The network by which QINCo moves its codes.

Reference:
    Huijben et al., Residual Quantization with Implicit Neural Codebooks, 2024,
    https://arxiv.org/abs/2401.14732, section 3, eq. 5-6.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.quantizers.flat import linear


class CodeNetwork(nn.Module):
    """Moves a code to where the sum so far says it belongs: ``f(e, x)`` of the paper.

    ``v = e + Linear([e; x])``, then ``v = v + W2 relu(W1 v)`` for each block. Every last layer
    starts at zero, so the network starts as ``f(e, x) = e``.

    Args:
        width: of codes and sums d.
        hidden: width h of a block.
        blocks: number of blocks L.
    """

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.from_code = nn.Linear(width, width)
        self.from_sum = nn.Linear(width, width)
        bound = width**-0.5
        self.up = nn.Parameter(torch.empty(blocks, hidden, width).uniform_(-bound, bound))
        self.down = nn.Parameter(torch.zeros(blocks, width, hidden))
        for parameter in (*self.from_code.parameters(), *self.from_sum.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, code: Tensor, total: Tensor) -> Tensor:
        """Return the moved codes ``(..., d)`` of ``code`` and ``total``, which broadcast."""
        parts = (code + linear(self.from_code, code), linear(self.from_sum, total))
        v = parts[0] + parts[1]
        for i, (up, down) in enumerate(zip(self.up.float(), self.down.float(), strict=True)):
            # Before they meet, K codes and N sums cost K + N products, not K N.
            wide = F.linear(v, up) if i else F.linear(parts[0], up) + F.linear(parts[1], up)
            v = v + F.linear(F.relu(wide), down)
        return v
