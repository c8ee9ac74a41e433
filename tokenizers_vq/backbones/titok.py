"""Pictures as a sequence of tokens without a place: TiTok, TA-TiTok and One-D-Piece."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.backbones.base import TokenDecoder, TokenEncoder
from tokenizers_vq.backbones.cnn2d import CNN2dDecoder
from tokenizers_vq.backbones.cnn2d_plan import rescale
from tokenizers_vq.backbones.places import start_in_place
from tokenizers_vq.backbones.text_tower import TEXT_TOKENS, TEXT_WIDTH, features_of
from tokenizers_vq.backbones.transformer import (
    Transformer,
    init_weights,
    learned,
    patchify,
    unpatchify,
)
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.types import SignalSpec

RANGE = (0.0, 1.0)  # of the pixels that these networks see and make
TEXT = (
    f"text: captions as a list of B strings, or features (B, {TEXT_TOKENS}, {TEXT_WIDTH}) of the "
    "text tower; None for features of zeros, which no model was trained on."
)


class TiTokEncoder(TokenEncoder):
    """Vision transformer that writes a picture into N latents.

    Learned latents stand behind the squares of the picture in one sequence, attend to it and to
    each other, and are what is kept.

    Args:
        dim: latent width D.
        signal: what the pixels mean; converted to [0, 1].
        size: side of the pictures.
        patch: side of the squares, a divisor of ``size``.
        width: width W of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        num_tokens: number of latents N.
        prefixes: the decoder understands the first n latents, for n of 1..N (One-D-Piece).
        scramble: read the final (N, W) rows as if they lay in memory as (W, N), in front of the map
            to the latent width. All released two-stage models were trained so.

    Shapes:
        x (B, C, size, size) -> z (B, n, D)

    Raises:
        ConfigError: ``patch`` does not divide ``size``, ``heads`` the width, or there is no token.
        ShapeError: ``x`` has another shape, or there is no such number of tokens.

    Reference:
        Yu et al., An Image is Worth 32 Tokens for Reconstruction and Generation, 2024,
        https://arxiv.org/abs/2406.07550, section 3.2; Miwa et al., One-D-Piece, 2025,
        https://arxiv.org/abs/2501.10064.

    Example:
        >>> encoder = TiTokEncoder(
        ...     8, SignalSpec("image"), size=32, width=32, layers=1, heads=2, num_tokens=4
        ... )
        >>> encoder(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 4, 8])
    """

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        size: int = 256,
        patch: int = 16,
        width: int = 512,
        layers: int = 8,
        heads: int = 8,
        *,
        num_tokens: int = 128,
        prefixes: bool = False,
        scramble: bool = False,
    ) -> None:
        side = _positions(size, patch, num_tokens)
        super().__init__(dim, (patch, patch), signal)
        self.size = (size, size)
        self.counts = _counts(num_tokens, prefixes)
        self.scramble = scramble
        self.embed = nn.Linear(signal.channels * patch**2, width)
        self.class_token = learned(1, width)
        self.positions = learned(side**2 + 1, width)
        self.latents = learned(num_tokens, width)
        self.latent_positions = learned(num_tokens, width)
        self.transformer = Transformer(width, layers, heads)
        self.to_latent = nn.Linear(width, dim)
        init_weights(self)
        start_in_place(self.transformer, self.positions[1:], self.latent_positions, side)

    def forward(self, x: Tensor, num_tokens: int | None = None) -> Tensor:
        """Return latents ``(B, n, D)`` of pictures ``(B, C, size, size)``."""
        self.check_signal(x)
        count = self.check_count(num_tokens)
        patches = patchify(rescale(x, self.signal.value_range, RANGE), self.stride[0])
        squares = self.embed(patches.flatten(1, 2)) + self.positions[1:]  # (B, h * w, W)
        first = self.class_token + self.positions[:1]
        latents = self.latents + self.latent_positions
        h = torch.cat([_repeat(first, x), squares, _repeat(latents, x)], dim=1)
        h = self.transformer(h, keep=slice(-self.num_tokens, None))
        if self.scramble:
            h = h.flatten(1).unflatten(1, (-1, self.num_tokens)).mT  # (B, N, W) seen as (B, W, N)
        z: Tensor = self.to_latent(h)
        return z[:, :count]


class CodeScores(nn.Module):
    """Two linear maps with tanh between them, from rows to scores of codes.

    Args:
        width: width W of the rows; twice as many inside.
        codes: number of codes.

    Shapes:
        rows (..., W) -> scores (..., codes)
    """

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, codes)

    def forward(self, rows: Tensor) -> Tensor:
        """Return scores ``(..., codes)`` of rows ``(..., W)``."""
        scores: Tensor = self.out(self.hidden(rows).tanh())
        return scores


class TiTokDecoder(TokenDecoder):
    """Vision transformer that reads a picture out of at most N latents.

    One mask token per square and the latents are one sequence. With ``codes`` what comes out at a
    square are scores of the codes of another tokenizer, whose expected code a convolutional decoder
    turns into pixels; without, it is the pixels, which one 3x3 convolution smooths.

    Args:
        dim: latent width D.
        signal: what the pixels mean; converted from [0, 1].
        size: side of the pictures.
        patch: side of the squares, a divisor of ``size``.
        width: width W of the transformer.
        layers: number of blocks.
        heads: attention heads per block.
        num_tokens: largest number of latents N.
        prefixes: take the first n latents for any n of 1..N; in training each batch gets an n drawn
            evenly (tail token drop).
        codes: number of codes to score (1,024 of MaskGIT's tokenizer); 0 makes pixels directly.
        pixels: options of ``CNN2dDecoder``, ``dim`` among them, for what makes pixels of codes.
            None leaves them out: such a decoder has scores only, see ``logits``.
        text: append the features of a caption to the latents (TA-TiTok).

    Shapes:
        z_q (B, n, D) -> x_hat (B, C, size, size), not clamped

    Raises:
        ConfigError: the numbers do not fit each other, ``pixels`` without ``codes``, or pixels
            are asked of a decoder without them.
        ShapeError: ``z_q``, ``mask`` or ``text`` has another shape.

    Reference:
        Yu et al., 2024, https://arxiv.org/abs/2406.07550, sections 3.2 and 3.3 (codes);
        Kim et al., Democratizing Text-to-Image Masked Generative Models with Compact Text-Aware
        One-Dimensional Tokens, 2025, https://arxiv.org/abs/2501.07730, section 3 (pixels, text);
        Miwa et al., One-D-Piece, 2025, https://arxiv.org/abs/2501.10064 (prefixes).
    """

    def __init__(  # noqa: PLR0913 - one flat list of options is what a config file holds
        self,
        dim: int,
        signal: SignalSpec,
        size: int = 256,
        patch: int = 16,
        width: int = 512,
        layers: int = 8,
        heads: int = 8,
        *,
        num_tokens: int = 128,
        prefixes: bool = False,
        codes: int = 0,
        pixels: Mapping[str, Any] | None = None,
        text: bool = False,
    ) -> None:
        side = _positions(size, patch, num_tokens)
        super().__init__(dim, (patch, patch), signal)
        self.size = (size, size)
        self.counts = _counts(num_tokens, prefixes)
        self.options = MappingProxyType({"text": TEXT} if text else {})
        self.from_latent = nn.Linear(dim, width)
        self.class_token = learned(1, width)
        self.positions = learned(side**2 + 1, width)
        self.mask_token = learned(1, width)
        self.latent_positions = learned(num_tokens, width)
        self.transformer = Transformer(width, layers, heads)
        self.text_proj = nn.Linear(TEXT_WIDTH, width) if text else None
        self.text_positions = learned(TEXT_TOKENS, width) if text else None
        self.head: nn.Linear | None = None
        self.conv_out: nn.Conv2d | None = None
        self.scores: CodeScores | None = None
        if codes:
            self.scores = CodeScores(width, codes)
        else:
            self.head = nn.Linear(width, signal.channels * patch**2)
            self.conv_out = nn.Conv2d(signal.channels, signal.channels, 3, padding=1)
        init_weights(self)
        start_in_place(self.transformer, self.positions[1:], self.latent_positions, side)
        if self.scores is not None:
            init_weights(self.scores, std=0.02)  # all codes are as likely to begin with
        if self.head is not None and self.conv_out is not None:
            _start_grey(self.head, self.conv_out)
        self.pixels: CNN2dDecoder | None = None
        self.codebook: nn.Parameter | None = None
        if pixels is not None:
            self._add_pixels(codes, pixels)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution, or of the scores where there are no pixels."""
        if self.pixels is not None:
            return self.pixels.last_layer
        last: Any = self.conv_out if self.scores is None else self.scores.out
        weight: Tensor = last.weight
        return weight

    def forward(
        self,
        z_q: Tensor,
        mask: Tensor | None = None,
        text: Tensor | Sequence[str] | None = None,
        **options: Any,
    ) -> Tensor:
        """Return pictures ``(B, C, size, size)`` of latents ``(B, n, D)``.

        Args:
            z_q: ``(B, n, D)``.
            mask: ``(B, n)`` bool, True at latents that are there; None for all.
            text: captions, see ``options``.
            **options: there are no others.
        """
        rows = self.squares(z_q, mask, text)
        if self.head is not None and self.conv_out is not None:
            x_hat = self.conv_out(unpatchify(self.head(rows), self.stride[0]))
            return rescale(x_hat, RANGE, self.signal.value_range)
        if self.pixels is None or self.scores is None or self.codebook is None:
            raise ConfigError(
                "TiTokDecoder: expected a decoder with pixels; got one of the first stage, with "
                "scores of codes only. Use decoder.logits(z_q), or add the codebook and decoder "
                "of the tokenizer whose codes they are."
            )
        expected = self.scores(rows).float().softmax(-1).to(rows.dtype) @ self.codebook
        picture: Tensor = self.pixels(expected)
        return picture

    def logits(
        self,
        z_q: Tensor,
        mask: Tensor | None = None,
        text: Tensor | Sequence[str] | None = None,
    ) -> Tensor:
        """Return scores ``(B, h, w, codes)`` of the codes at each square; arguments as ``forward``.

        Raises:
            ConfigError: the decoder makes pixels directly.
            ShapeError: ``z_q``, ``mask`` or ``text`` has another shape.
        """
        if self.scores is None:
            raise ConfigError(
                "TiTokDecoder: expected a decoder that scores codes; got one that makes pixels. "
                "Build it with codes=1024."
            )
        scores: Tensor = self.scores(self.squares(z_q, mask, text))
        return scores

    def squares(
        self, z_q: Tensor, mask: Tensor | None, text: Tensor | Sequence[str] | None
    ) -> Tensor:
        """Return the transformer's rows ``(B, h, w, W)`` at the squares of the picture."""
        self.check_latents(z_q)
        if self.training and len(self.counts) > 1 and mask is None:
            z_q = z_q[:, : int(torch.randint(1, z_q.shape[1] + 1, ()))]  # tail token drop
        latents = self.from_latent(z_q) + self.latent_positions[: z_q.shape[1]]
        h, w = (n // step for n, step in zip(self.size or (), self.stride, strict=True))
        blank = self.mask_token + self.positions[1:]  # (h * w, W)
        first = self.class_token + self.positions[:1]
        parts = [_repeat(first, z_q), _repeat(blank, z_q), latents, *self._words(text, z_q)]
        seen = None if mask is None else _seen(mask, parts)
        rows = self.transformer(torch.cat(parts, dim=1), seen, slice(1, 1 + h * w))
        out: Tensor = rows.reshape(rows.shape[0], h, w, -1)
        return out

    def _words(self, text: Tensor | Sequence[str] | None, z_q: Tensor) -> list[Tensor]:
        """Return the rows ``(B, 77, W)`` of captions, if the decoder takes any."""
        if self.text_proj is None or self.text_positions is None:
            return []
        features = features_of(text, z_q)
        words: Tensor = self.text_proj(features)
        return [words + self.text_positions]

    def _add_pixels(self, codes: int, pixels: Mapping[str, Any]) -> None:
        if not codes or "dim" not in pixels:
            raise ConfigError(
                f"TiTokDecoder: expected codes and a dim in front of pixels; got codes {codes} and "
                f"{sorted(pixels)}. Give both, or leave pixels out."
            )
        self.pixels = CNN2dDecoder(signal=self.signal, **pixels)
        if self.pixels.stride != self.stride:
            raise ConfigError(
                f"TiTokDecoder: expected pixels of stride {self.stride[0]}, the patch; got "
                f"{self.pixels.stride[0]}. Give channel_mult another length."
            )
        bound = 1 / codes
        self.codebook = nn.Parameter(torch.empty(codes, pixels["dim"]).uniform_(-bound, bound))


def _start_grey(head: nn.Linear, conv: nn.Conv2d) -> None:
    """Make every first picture almost grey.

    What latents say before training is noise in the picture; the shortest way out of it is an
    encoder that says nothing, from where it hardly comes back.
    """
    if not head.weight.is_meta and conv.bias is not None:
        nn.init.normal_(head.weight, std=0.1 * head.in_features**-0.5)
        nn.init.dirac_(conv.weight)
        nn.init.constant_(conv.bias, sum(RANGE) / 2)


def _repeat(rows: Tensor, x: Tensor) -> Tensor:
    """Return ``rows (N, W)`` for each item of the batch ``x``."""
    return rows.expand(x.shape[0], -1, -1)


def _seen(mask: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Return which rows may be looked at, ``(B, 1, 1, rows)``: all but missing latents."""
    seen = [part.new_ones(part.shape[:2], dtype=torch.bool) for part in parts]
    seen[2] = mask
    return torch.cat(seen, dim=1)[:, None, None]


def _counts(num_tokens: int, prefixes: bool) -> tuple[int, ...]:
    return tuple(range(1, num_tokens + 1)) if prefixes else (num_tokens,)


def _positions(size: int, patch: int, num_tokens: int) -> int:
    """Return the squares along a side."""
    if patch < 1 or size < 1 or size % patch or num_tokens < 1:
        raise ConfigError(
            f"titok: expected a size that is a multiple of the patch, and a token; got size "
            f"{size}, patch {patch}, num_tokens {num_tokens}. Correct the backbone config."
        )
    return size // patch
