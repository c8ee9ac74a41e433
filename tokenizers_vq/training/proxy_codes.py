"""The first stage of TiTok's recipe: learn the codes of another tokenizer, not pixels."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizers_vq.backbones.titok import TiTokDecoder
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.hub import load
from tokenizers_vq.quantizers.learned import LearnedCodes
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Reconstruction


class ProxyCodes:
    """Cross entropy between the decoder's scores and the codes of a frozen tokenizer.

    The term is ``model/proxy``, in nats per square. No pixels are made, so weights of pixel losses
    have to be absent. Before the first step the codebook and the decoder of the frozen tokenizer
    become those behind the scores: validation shows pictures, and the second stage, which trains
    the decoder on pixels (``trainable: [decoder]``), begins with them.

    Args:
        source: what makes the codes, on the same grid: a name or folder that ``hub.load`` takes,
            or the config of a tokenizer, which gets random weights (for tests).

    Raises:
        ConfigError: the tokenizer has no scores of codes with pixels behind them, or those are of
            other sizes than the source has.

    Reference:
        Yu et al., An Image is Worth 32 Tokens for Reconstruction and Generation, 2024,
        https://arxiv.org/abs/2406.07550, section 3.3 (warm-up).
    """

    def __init__(self, source: str | Mapping[str, Any]) -> None:
        made = load(source) if isinstance(source, str) else Tokenizer.from_config(source)
        self.source = made.requires_grad_(False).eval()
        self._given = False

    def __call__(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return a reconstruction without pixels and the term ``proxy``.

        Args:
            tokenizer: what is trained, with a ``TiTokDecoder``.
            x: signals ``(B, C, size, size)`` in the signal's range.
            step: optimizer steps taken so far.
        """
        decoder = self._decoder(tokenizer)
        if not self._given:
            self.source.to(x.device)
            self._give(decoder)
        with torch.no_grad():
            codes = self.source.quantizer.encode(self.source.encoder(x))[..., 0]  # (B, h, w)
        z = tokenizer.encoder(x)
        quantized = tokenizer.quantizer(z)
        scores = decoder.logits(quantized.z_q.contiguous()).float()
        proxy = F.cross_entropy(scores.flatten(0, -2), codes.flatten())
        return Reconstruction(x.new_empty(0), z, quantized, {"proxy": proxy})

    def _decoder(self, tokenizer: Tokenizer) -> TiTokDecoder:
        decoder = tokenizer.decoder
        if not isinstance(decoder, TiTokDecoder) or decoder.pixels is None:
            raise ConfigError(
                "ProxyCodes: expected a titok decoder with codes and pixels; got "
                f"{type(decoder).__name__} without. Set backbone.decoder.codes and .pixels."
            )
        return decoder

    @torch.no_grad()
    def _give(self, decoder: TiTokDecoder) -> None:
        """Copy codebook and pixel decoder of the source into ``decoder``."""
        head, own = self.source.quantizer, decoder.codebook
        codes = head.codes() if isinstance(head, LearnedCodes) else None
        theirs = self.source.decoder.state_dict()
        wanted = {} if decoder.pixels is None else decoder.pixels.state_dict()
        same = {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in wanted.items()}
        if codes is None or own is None or codes.shape != own.shape or not same:
            raise ConfigError(
                f"ProxyCodes: expected a source with one codebook and a decoder as behind the "
                f"scores, {None if own is None else tuple(own.shape)}; got "
                f"{None if codes is None else tuple(codes.shape)}. Set backbone.decoder.codes and "
                ".pixels to the sizes of the source."
            )
        own.copy_(codes)
        if decoder.pixels is not None:
            decoder.pixels.load_state_dict(theirs)
        self._given = True
