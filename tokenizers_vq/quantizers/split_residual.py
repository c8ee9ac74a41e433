"""Stacks side by side on the same latents, each behind its own linear map; their outputs add up.

Reference:
    Defossez et al., Moshi: a speech-text foundation model for real-time dialogue, 2024,
    https://arxiv.org/abs/2410.00037, section 3.3.2 (one level for what is said, distilled, and in
    parallel to it, not in front of it, a residual stack for how it sounds).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.stages import fill_prefix


class SplitResidual(Grouped):
    """Parallel quantizers of the whole latent, whose outputs are added.

    Part p quantizes ``A_p z`` to ``q_p``, and the output is the sum of ``B_p q_p``; the maps have
    no bias. Written as one map there and one back, with the ``A_p`` below each other and the
    ``B_p`` beside each other, this is quantization of groups of channels. Losses and terms are
    means over the parts. Indices are concatenated in the order of the parts, and any number of
    leading columns decodes.

    Args:
        dim: latent width D; None for ``code_dim``.
        groups: the parts, at least one; a first ``vq`` and a ``residual`` stack in Mimi.
        code_dim: the sum of the parts' widths; None for what they sum up to. Parts that name no
            width share it evenly.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, sum of the parts' K)

    Terms:
        Each term's mean over the parts.

    Raises:
        ConfigError: there is no part, one whose tokens depend on their place, or their widths do
            not add up to ``code_dim``.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = SplitResidual(8, groups=[VectorQuantizer(4, codebook_size=16) for _ in range(2)])
        >>> q(torch.zeros(2, 5, 8)).indices.shape
        torch.Size([2, 5, 2])
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        groups: Sequence[Quantizer],
        code_dim: int | None = None,
    ) -> None:
        super().__init__(dim, groups=groups, code_dim=code_dim)
        self.project_in = nn.Linear(self.dim, self.code_dim, bias=False)
        self.project_out = nn.Linear(self.code_dim, self.dim, bias=False)

    @staticmethod
    def inner_dim(dim: int, count: int) -> int:
        """Return the width of each of ``count`` parts that share ``dim`` channels.

        Raises:
            ConfigError: ``dim`` cannot be shared evenly.
        """
        if dim % count:
            raise ConfigError(
                f"SplitResidual: expected a width that {count} parts can share; got {dim}. "
                "Set code_dim to a multiple."
            )
        return dim // count

    def complete(self, indices: Tensor) -> Tensor:
        """Return ``indices (..., k)``, the first columns, filled up with -1.

        Raises:
            ShapeError: there is no column.
        """
        return fill_prefix(indices, self.num_codebooks)
