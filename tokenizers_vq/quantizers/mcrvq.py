"""Residual quantization whose first stages each see a part of the channels.

Reference:
    Ji et al., Language-Codec: Reducing the Gaps Between Discrete Codec Representation and Speech
    Language Models, 2024, https://arxiv.org/abs/2402.12208, section 3.2 (MCRVQ).
    Differs from the authors' code: there ``encode`` runs an ordinary residual stack and does not
    return the indices that training and inference use; here it does. There the encoder's gradient
    is one identity per masked stage (3 times too large at five levels); here it is the identity.
    Depths are drawn for each item, not for the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.flat import Tokens
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.stages import draw_depth


class MCRVQ(Residual):
    """Masked channel residual vector quantization.

    The channels are cut into ``parts`` neighbouring groups. Each of the first stages quantizes the
    latent with all other channels set to zero, by codes of full width, so no stage depends on the
    one before it and the information spreads evenly over them. The next stage quantizes what their
    sum leaves over, and so on.

    Args:
        dim: latent width D; None for ``code_dim``.
        stages: the quantizers, at least ``parts``, all of width ``code_dim``.
        code_dim: width the stages work in; None for ``dim``, or for the first stage's width.
        parts: number of groups of channels; group i begins at channel ``floor(i * d / parts)``.
        stage_dropout: probability that an item of a training batch stops after a random number of
            stages, ``parts`` to all; always 1 in the paper.

    Shapes:
        z (B, *grid, D) -> z_q (B, *grid, D), indices (B, *grid, sum of the stages' K).
        ``decode`` takes any number of leading columns.

    Terms:
        Each term's mean over the stages, and term/i for stage i.

    Raises:
        ConfigError: there are fewer stages or channels than parts, or the stages' widths differ.

    Example:
        >>> from tokenizers_vq.quantizers.vq import VectorQuantizer
        >>> q = MCRVQ(dim=8, stages=[VectorQuantizer(8, codebook_size=16) for _ in range(5)])
        >>> q(torch.zeros(2, 7, 8)).indices.shape
        torch.Size([2, 7, 5])
    """

    conventions = (*Residual.conventions, "parts")
    _masks: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        stages: Sequence[Quantizer],
        code_dim: int | None = None,
        parts: int = 3,
        stage_dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, stages=stages, code_dim=code_dim, stage_dropout=stage_dropout)
        if not isinstance(parts, int) or not 1 <= parts <= min(len(stages), self.code_dim):
            raise ConfigError(
                f"MCRVQ: expected 1 to {min(len(stages), self.code_dim)} parts for {len(stages)} "
                f"stages and {self.code_dim} channels; got {parts!r}."
            )
        self.parts = parts
        cuts = [i * self.code_dim // parts for i in range(parts + 1)]
        masks = torch.zeros(parts, self.code_dim, dtype=torch.bool)
        for mask, start, stop in zip(masks, cuts[:-1], cuts[1:], strict=True):
            mask[start:stop] = True
        self.register_buffer("_masks", masks, persistent=False)

    def _rest(self, stage: int, u: Tensor, out: Tensor) -> Tensor:
        if stage < self.parts:
            return torch.where(self._masks[stage], u, 0.0)
        return super()._rest(stage, u, out)

    def _depth(self, tokens: Tokens) -> Tensor:
        dropout = self.stage_dropout if self.training else 0.0
        return draw_depth(tokens, self.parts, len(self.stages), dropout, self.generator)
