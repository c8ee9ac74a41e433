"""A tokenizer: encoder, quantizer and decoder behind two verbs, ``encode`` and ``decode``."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from tokenizers_vq import allocation, clips
from tokenizers_vq.backbones.absent import AbsentDecoder
from tokenizers_vq.backbones.base import AXES, Decoder, Encoder, TokenDecoder
from tokenizers_vq.bitstream import CountPrior, from_bytes, to_bytes
from tokenizers_vq.errors import ConfigError, ShapeError, check_indices, check_shape
from tokenizers_vq.functional.index_map import IndexMaps
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.split_residual import SplitResidual
from tokenizers_vq.registry import build
from tokenizers_vq.types import Codes, Reconstruction, SignalSpec

if TYPE_CHECKING:
    from tokenizers_vq.stream import Stream

PARTS = ("signal", "dim", "encoder", "quantizer", "decoder")


class Tokenizer(nn.Module):
    """Signals to integers and back.

    Args:
        encoder: signal ``(B, C, *S)`` to latents ``(B, *grid, D)``.
        quantizer: latents to indices ``(B, *grid, K)`` and back.
        decoder: latents to a signal.
        config: the plain data the three were built from; saved as ``config.json``.
        name: ``arch.tag``, part of ``Codes.model``.
        prior: symbol statistics for the entropy coder; without one ``.tok`` files are fixed-width.

    Raises:
        ConfigError: the three parts disagree about the latent width or the stride.
    """

    encoder: Encoder
    quantizer: Quantizer
    decoder: Decoder

    def __init__(
        self,
        encoder: Encoder,
        quantizer: Quantizer,
        decoder: Decoder,
        config: Mapping[str, Any] | None = None,
        *,
        name: str = "unnamed",
        prior: CountPrior | None = None,
    ):
        super().__init__()
        widths = (encoder.dim, quantizer.dim, decoder.dim)
        if len(set(widths)) != 1 or encoder.stride != decoder.stride:
            raise ConfigError(
                f"Tokenizer: expected one latent width and one stride; got widths {widths} and "
                f"strides {encoder.stride}, {decoder.stride} of encoder, quantizer, decoder."
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.config = dict(config or {})
        self.name = name
        self.prior = prior
        self.file_sha256: str | None = None  # set by the hub when the weights come from a file
        self.index_maps: IndexMaps | None = None  # where codes of the tokenizer it came from lead
        self.source: Mapping[str, Any] | None = None  # where published weights came from

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "unnamed") -> Self:
        """Build an untrained tokenizer from plain data.

        Args:
            config: mappings ``signal``, ``encoder``, ``quantizer``, ``decoder`` and the latent
                width ``dim``; names are those of ``registry``.
            name: ``arch.tag`` of the result.

        Raises:
            ConfigError: a part, name or option is missing or unknown.
        """
        missing = [part for part in PARTS if part not in config]
        if missing:
            raise ConfigError(
                f"Tokenizer: expected a config with {', '.join(PARTS)}; "
                f"{', '.join(missing)} missing."
            )
        signal = SignalSpec(**config["signal"])
        shared = {"dim": int(config["dim"]), "signal": signal}
        encoder = build("encoder", config["encoder"], **shared)
        quantizer = build("quantizer", config["quantizer"], **shared)
        decoder = build("decoder", config["decoder"], **shared)
        return cls(encoder, quantizer, decoder, {part: config[part] for part in PARTS}, name=name)

    @property
    def signal(self) -> SignalSpec:
        """What the numbers of this tokenizer's signals mean."""
        return self.encoder.signal

    @property
    def stride(self) -> tuple[int, ...]:
        """Input samples per latent position, per axis."""
        return self.encoder.stride

    @property
    def decodable(self) -> bool:
        """Whether there is a decoder: tokens of some speech tokenizers are for language models."""
        return not isinstance(self.decoder, AbsentDecoder)

    @property
    def decode_options(self) -> Mapping[str, str]:
        """The further arguments of ``decode``, with one sentence each."""
        return self.decoder.options

    @property
    def sha256(self) -> str:
        """Hex digest of the weights: of the file they came from, else of what they are now."""
        if self.file_sha256 is not None:
            return self.file_sha256
        state = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        return hashlib.sha256(safetensors_bytes(state)).hexdigest()

    @property
    def model_id(self) -> str:
        """``name@hash``, what ``Codes`` carry to tell their maker; no hash before it is saved."""
        return f"{self.name}@{self.file_sha256[:8] if self.file_sha256 else 'unsaved'}"

    def forward(self, x: Tensor) -> Reconstruction:
        """Encode, quantize and decode with gradients, for training.

        Args:
            x: ``(B, C, *S)`` float in the signal's range; any size, padded and cropped inside.
        """
        x, scale = clips.scaled(self, x)
        z = self.encoder(self.encoder.frame(x))  # (B, *grid, D)
        quantized = self.quantizer(z)
        x_hat = self.decoder.reconstruct(quantized.z_q.contiguous(), x)
        return Reconstruction(x_hat if scale is None else x_hat * scale, z, quantized)

    @torch.no_grad()
    def encode(
        self,
        x: Tensor,
        num_tokens: int | None = None,
        *,
        target_error: float | None = None,
        num_codebooks: int | None = None,
        lengths: Sequence[int] | None = None,
        sample_rate: int | None = None,
    ) -> Codes:
        """Turn signals into integers.

        Args:
            x: ``(B, C, *S)``, float in the signal's range, or uint8 for 0..255.
            num_tokens: how many tokens, for encoders to a sequence; None for all. The decoder does
                not run.
            target_error: as few tokens per item as give this mean absolute error, in units of the
                signal's range (0..1). Missing tokens have index -1. Encoders that were trained to
                choose need one pass, always leave out what they do not need, and take num_tokens
                as the most to give; for others each number of tokens is decoded and measured.
            num_codebooks: only the first codebooks of a residual head; the others are not searched.
            lengths: samples of each item of a padded batch ``(B, C, T)``. What is behind an item's
                end never changes its tokens; behind its own tokens it has -1.
            sample_rate: of ``x``, to be checked, never changed; ``data.sound.read_sound`` reads
                files of any rate.

        Returns:
            Codes with indices ``(B, *grid, K)`` int64 and what ``decode`` needs for the exact size.

        Raises:
            ShapeError: wrong rank, channels, size or rate, an empty axis, values outside the
                range, no such number of tokens or codebooks, or no such length.
            ConfigError: ``num_tokens`` or ``target_error`` for an encoder to one grid, or both for
                one that does not choose; ``lengths`` for a signal of several axes.
        """
        wishes: dict[str, Any] = {"target_error": target_error, "num_codebooks": num_codebooks}
        wishes["num_tokens"] = num_tokens
        if sample_rate not in (None, self.signal.sample_rate):
            raise ShapeError(
                f"encode: expected {self.signal.sample_rate} samples per second; got "
                f"{sample_rate}. Resample, or read files with data.sound.read_sound."
            )
        if lengths is not None:
            return clips.encode_items(self, x, lengths, **wishes)
        x = self.check_signal(x)
        indices, scale = clips.encode(self, x, **wishes)
        sizes = self.quantizer.codebook_sizes[:num_codebooks]
        return Codes(indices.contiguous(), tuple(x.shape[2:]), sizes, self.model_id, scale)

    @torch.no_grad()
    def decode(
        self,
        codes: Codes | Tensor,
        num_codebooks: int | None = None,
        *,
        num_tokens: int | None = None,
        raw: bool = False,
        **options: Any,
    ) -> Tensor:
        """Turn integers back into signals.

        Args:
            codes: what ``encode`` of this tokenizer or of an ancestor (``adopt``) returned, or bare
                indices ``(B, *grid, K)`` int64 of this one.
            num_codebooks: decode only the first codebooks of a residual head, or the first scales
                of a multi-scale one.
            num_tokens: decode only the first tokens of a sequence, where the decoder was trained
                for that.
            raw: do not clamp to the signal's range.
            **options: further arguments of the decoder, see ``decode_options``.

        Returns:
            ``(B, C, *S)`` of exactly the size that was encoded; zeros behind the end of an item
            that had a length of its own.

        Raises:
            ShapeError: indices of another rank, dtype or range, a head without prefixes, or no
                such number of tokens.
            ConfigError: the decoder has no such option.
        """
        self.check_options(options)
        if isinstance(codes, Codes) and codes.lengths is not None:
            options |= {"num_codebooks": num_codebooks, "num_tokens": num_tokens, "raw": raw}
            return clips.decode_items(self, codes, **options)
        indices, shape = self._check_codes(codes)
        if num_tokens is not None:
            indices = allocation.prefix(self, indices, num_tokens)
        grid = self._grid_of(codes, shape)
        if self.encoder.latent_axes != self.signal.axes:
            grid = tuple(indices.shape[1:-1])
        if num_codebooks is not None:
            indices = self._prefix(indices, num_codebooks, grid)
        scale = codes.scale if isinstance(codes, Codes) else None
        x_hat = clips.decode(self, indices, grid, shape, scale, options)
        low, high = self.signal.value_range
        return x_hat if raw else x_hat.clamp(low, high)

    def adopt(self, codes: Codes) -> Codes:
        """Return codes of an ancestor as codes of this tokenizer, and all others as they are.

        An ancestor is a tokenizer whose codebook was pruned, revived or clustered to make this one:
        its stored tokens stay valid, and become smaller where this codebook is.

        Raises:
            ShapeError: the ancestor's codes have indices outside its codebooks.
        """
        if self.index_maps is None or codes.model == self.model_id:
            return codes
        known = self.index_maps.by_model.get(codes.model)
        if known is None:
            return codes
        sizes = self.quantizer.codebook_sizes
        indices = known.apply(codes.indices)
        return replace(codes, indices=indices, codebook_sizes=sizes, model=self.model_id)

    def compress(self, x: Tensor) -> bytes:
        """Return the bytes of a ``.tok`` file for ``x (B, C, *S)``."""
        return to_bytes(self.encode(x), self.prior)

    def decompress(self, data: bytes) -> Tensor:
        """Return the signals ``(B, C, *S)`` of a ``.tok`` file's bytes."""
        return self.decode(from_bytes(data, self.prior))

    def stream(self, num_codebooks: int | None = None) -> "Stream":
        """Return a stream, which encodes and decodes one signal in pieces.

        Args:
            num_codebooks: only the first codebooks of a residual head; None for all.

        Raises:
            ConfigError: the encoder, quantizer or decoder needs whole signals.
            ShapeError: no such number of codebooks.
        """
        from tokenizers_vq.stream import Stream

        return Stream(self, num_codebooks)

    def save(self, folder: str | Path, **options: Any) -> Path:
        """Write ``config.json`` and the weights to ``folder``; see ``hub.save``."""
        from tokenizers_vq.hub import save

        return save(self, folder, **options)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``ConfigError`` for an argument that ``decode`` does not have."""
        for option in options:
            if option not in self.decode_options:
                known = ", ".join(self.decode_options) or "none"
                raise ConfigError(
                    f"decode: expected decoder options of {known}; got {option!r}. "
                    "See tokenizer.decode_options."
                )

    def decoded(self, indices: Tensor, grid: tuple[int, ...], options: Mapping[str, Any]) -> Tensor:
        """Return what the decoder makes of checked indices that fill ``grid``: whole positions."""
        # one memory layout, so that the same codes give the same bits wherever they come from
        z_q = self.quantizer.decode(indices, grid).contiguous()
        missing = (indices < 0).all(-1)
        mask = {"mask": ~missing} if bool(missing.any()) else {}
        if not isinstance(self.decoder, TokenDecoder):
            mask = {}
        x_hat: Tensor = self.decoder(z_q, **mask, **options)
        return x_hat

    def _prefix(self, indices: Tensor, count: int, grid: tuple[int, ...]) -> Tensor:
        head, total = self.quantizer, self.quantizer.num_codebooks
        if isinstance(head, MultiScale):
            return head.prefix(indices, count, grid)
        if 1 <= count <= total:
            prefix = head.complete(indices[..., :count])  # heads without prefixes leave it short
            if prefix.shape[-1] == total:
                return prefix
        raise ShapeError(
            f"decode: expected num_codebooks of 1..{total} and a residual or multi-scale "
            f"quantizer; got {count} for {type(head).__name__}."
        )

    def check_signal(self, x: Tensor, *, empty: bool = False) -> Tensor:
        """Return ``x (B, C, *S)`` as floats in the signal's range, on the tokenizer's device.

        Args:
            x: float in the signal's range, or uint8 for 0..255.
            empty: whether an axis of S may be empty.

        Raises:
            ShapeError: wrong rank or channels, an empty axis, or values outside the range.
        """
        axes = AXES[self.signal.kind]
        hint = "Signals are tensors, channels first, with a batch axis (x[None] adds one)."
        check_shape(x, f"B {self.signal.channels} {axes}", "encode", hint)
        if 0 in x.shape[2:] and not empty:
            raise ShapeError(f"encode: expected at least 1 sample per axis; got {tuple(x.shape)}.")
        low, high = self.signal.value_range
        x = x.to(self._device)
        if x.dtype == torch.uint8:
            return x.to(self._dtype) * ((high - low) / 255) + low
        if not x.is_floating_point():
            raise ShapeError(f"encode: expected a float or uint8 signal; got {x.dtype}.")
        slack = 0.01 * (high - low)
        # written so that NaN is refused too
        if x.numel() and not (low - slack <= float(x.min()) <= float(x.max()) <= high + slack):
            raise ShapeError(
                f"encode: expected values in [{low:g}, {high:g}]; got {float(x.min()):.3g} to "
                f"{float(x.max()):.3g}. Rescale, or pass uint8 for 0..255."
            )
        return x.to(self._dtype)

    def _check_codes(self, codes: Codes | Tensor) -> tuple[Tensor, tuple[int, ...]]:
        sizes = self.quantizer.codebook_sizes
        if isinstance(codes, Codes):
            codes = self.adopt(codes)
            if not self._leads(codes.codebook_sizes):
                raise ShapeError(
                    f"decode: expected codes of codebooks {_short(sizes)}; got "
                    f"{_short(codes.codebook_sizes)}, made by '{codes.model}'. "
                    f"Decode them with that tokenizer; this is '{self.model_id}'."
                )
            if codes.model and codes.model != self.model_id:
                warnings.warn(
                    f"decode: these codes were made by '{codes.model}'; this is '{self.model_id}'.",
                    stacklevel=3,
                )
            indices, shape = codes.indices, codes.shape
            if codes.codebook_sizes != sizes:
                indices = self.quantizer.complete(indices)
        else:
            check_shape(codes, "B *grid K", "decode", "Pass Codes, or int64 indices as a tensor.")
            indices = codes
            shape = self.encoder.size or self._shape_of(tuple(codes.shape[1:-1]))
        axes = len(self.quantizer.index_grid((1,) * self.encoder.latent_axes))
        if indices.ndim != axes + 2:
            raise ShapeError(
                f"decode: expected indices of shape (B, *grid, {len(sizes)}) with "
                f"{axes} grid axes; got {tuple(indices.shape)}."
            )
        check_indices(indices, sizes, "decode")
        expected = clips.index_grid(self, self._grid_of(codes, shape), shape)
        if isinstance(self.decoder, TokenDecoder) and indices.shape[1] in self.decoder.counts:
            expected = tuple(indices.shape[1:-1])
        if expected != tuple(indices.shape[1:-1]):
            raise ShapeError(
                f"decode: expected a grid of {expected} for a signal of {shape}; "
                f"got {tuple(indices.shape[1:-1])}. Codes keep the shape that was encoded."
            )
        return indices.to(self._device), shape

    def _grid_of(self, codes: Codes | Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the grid of latents; bare indices have theirs, however signals are framed."""
        if isinstance(codes, Codes) or self.encoder.size:
            return self.encoder.grid(shape)
        return self.quantizer.latent_grid(tuple(codes.shape[1:-1]))

    def _leads(self, sizes: tuple[int, ...]) -> bool:
        """Whether codes of codebooks of these sizes decode: all, or the first ones of a stack."""
        ours = self.quantizer.codebook_sizes
        stack = isinstance(self.quantizer, Residual | SplitResidual) and len(sizes) > 0
        return sizes == ours or (stack and sizes == ours[: len(sizes)])

    def _shape_of(self, index_grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the samples per axis of the signal whose indices fill ``index_grid``."""
        grid = self.quantizer.latent_grid(index_grid)
        if len(grid) != len(self.stride):  # refused by whoever asks
            return ()
        return self.encoder.samples(grid)

    @property
    def _anchor(self) -> Tensor:
        """A weight of the decoder, or of the encoder where there is no decoder."""
        return next(chain(self.decoder.parameters(), self.encoder.parameters()))

    @property
    def _dtype(self) -> torch.dtype:
        return self._anchor.dtype

    @property
    def _device(self) -> torch.device:
        return self._anchor.device

    def train(self, mode: bool = True) -> Self:
        """Switch to training or eval; weights that learn leave their file and index maps behind."""
        if mode:
            self.file_sha256 = self.index_maps = None
        return super().train(mode)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze or unfreeze weights and codebooks alike: a moving average is no parameter."""
        self.quantizer.requires_grad_(requires_grad)
        return super().requires_grad_(requires_grad)

    def extra_repr(self) -> str:
        """Name, stride and bits per position."""
        bits = sum(math.log2(size) for size in self.quantizer.codebook_sizes)
        return f"{self.name}, stride={self.stride}, bits_per_position={bits:.2f}"


def _short(sizes: tuple[int, ...]) -> str:
    return str(sizes) if len(sizes) <= 4 else f"{len(sizes)} x {sizes[0]}.."
