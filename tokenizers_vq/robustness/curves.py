"""What is left of pictures when tokens are missing or wrong: curves over the share of damage.

Reference:
    Qiu et al., Robust Latent Matters: Boosting Image Generation with Sampling Error Synthesis,
    2025 (pFID). Their grid of settings is not public and their neighbours are those of the latent;
    here the grid is printed, and the neighbours are those of the chosen code, so that a curve needs
    the tokens alone. It is named by its feature space, never pFID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.data.transforms import to_signal, to_uint8
from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.metrics.extractors import extractor
from tokenizers_vq.metrics.fidelity import frechet_distance
from tokenizers_vq.metrics.similarity import psnr
from tokenizers_vq.quantizers.neighbours import perturb
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes

SHARES = (0.0, 0.05, 0.1, 0.25, 0.5)
RATES = (0.1, 0.25, 0.5, 1.0)  # alpha: probability that a token is drawn anew
COUNTS = (10, 100)  # delta: codes it is drawn from
BATCH = 4


@dataclass(frozen=True)
class Judge:
    """Pictures with their codes, and what reconstructions are held against.

    Attributes:
        tokenizer: in evaluation.
        pixels: the originals, uint8 ``(N, 3, H, W)``.
        codes: of batches of ``BATCH`` pictures.
        space: name of the feature space; empty where its weights are not here.
        real: features of the originals ``(N, d)``.
    """

    tokenizer: Tokenizer
    pixels: Tensor
    codes: list[Codes]
    space: str
    real: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer, pixels: Tensor) -> Judge:
        """Encode pictures, uint8 ``(N, 3, H, W)``."""
        codes = [tokenizer.encode(to_signal(part)) for part in torch.split(pixels, BATCH)]
        try:
            return cls(tokenizer, pixels, codes, "EffLite0", extractor("efflite0")(pixels).pooled)
        except MissingExtraError:
            return cls(tokenizer, pixels, codes, "", torch.empty(0))

    def point(self, pictures: Iterable[Tensor]) -> dict[str, float]:
        """Return the metrics of decoded batches ``(b, 3, H, W)`` in [-1, 1]."""
        fake = torch.cat([to_uint8(part).cpu() for part in pictures])
        found = {"psnr": float(psnr(self.pixels, fake).mean())}
        if self.space:
            features = extractor("efflite0")(fake).pooled
            found[f"FD-{self.space}"] = frechet_distance(self.real, features)
        return found

    def decoded(self, change: Callable[[Tensor], Tensor], **options: Any) -> dict[str, float]:
        """Return the metrics after ``change`` of the indices ``(b, *grid, K)``."""
        return self.point(
            self.tokenizer.decode(replace(codes, indices=change(codes.indices)), **options)
            for codes in self.codes
        )


def token_drop(
    judge: Judge, seed: int = 0, shares: Sequence[float] = SHARES
) -> list[dict[str, float]]:
    """Return the metrics with a share of the positions missing: their latents are zeros.

    The positions that are missing at a share are also missing at every larger one.
    """
    points = []
    for share in shares:
        generator = torch.Generator().manual_seed(seed)

        def drop(indices: Tensor, share: float = share, g: Any = generator) -> Tensor:
            gone = torch.rand(indices.shape[:-1], generator=g) < share
            return torch.where(gone[..., None].to(indices.device), -1, indices)

        points.append({"share": share, **judge.decoded(drop)})
    return points


def prefixes(judge: Judge, most: int = 6) -> tuple[str, list[dict[str, float]]]:
    """Return the metrics of the first codebooks, scales or tokens alone, and which of them it was.

    Empty where no prefix decodes.
    """
    for option, total in _prefix_options(judge):
        counts = sorted({max(1, round(total * k / most)) for k in range(1, most + 1)})
        points = []
        try:
            for count in counts:
                wish: dict[str, Any] = {option: count}
                parts = [judge.tokenizer.decode(codes, **wish) for codes in judge.codes]
                points.append({option: float(count), **judge.point(parts)})
        except (ValueError, RuntimeError):  # no prefixes: another option, or none
            continue
        if len(points) > 1:
            return option, points
    return "", []


def perturbation(
    judge: Judge,
    seed: int = 0,
    rates: Sequence[float] = RATES,
    counts: Sequence[int] = COUNTS,
) -> list[dict[str, float]]:
    """Return the metrics with tokens drawn anew from the neighbours of their codes.

    Raises:
        ConfigError: codes of the head have no neighbours.
    """
    points = []
    for count in counts:
        for rate in rates:
            generator = torch.Generator().manual_seed(seed)

            def wrong(
                indices: Tensor, r: float = rate, c: int = count, g: Any = generator
            ) -> Tensor:
                return perturb(judge.tokenizer.quantizer, indices, rate=r, count=c, generator=g)

            points.append({"rate": rate, "count": float(count), **judge.decoded(wrong)})
    return points


def levels(judge: Judge, seed: int = 0, rate: float = 1.0, most: int = 8) -> list[dict[str, float]]:
    """Return the metrics with one codebook at a time drawn anew from all its codes.

    Raises:
        ConfigError: the head has no codebooks.
    """
    sizes = judge.tokenizer.quantizer.codebook_sizes
    if not sizes:
        raise ConfigError(
            "levels: expected a head with codes; got a continuous one. Fit one to it."
        )
    points = []
    for k in sorted({round((len(sizes) - 1) * j / max(1, min(most, len(sizes)) - 1))
                     for j in range(min(most, len(sizes)))}):  # fmt: skip
        generator = torch.Generator().manual_seed(seed)

        def wrong(indices: Tensor, k: int = k, g: Any = generator) -> Tensor:
            changed = indices.clone()
            draw = torch.rand(indices.shape[:-1], generator=g) < rate
            other = torch.randint(sizes[k], indices.shape[:-1], generator=g)
            changed[..., k] = torch.where(draw, other, indices[..., k].cpu()).to(indices.device)
            return changed

        points.append({"codebook": float(k), **judge.decoded(wrong)})
    return points


def _prefix_options(judge: Judge) -> list[tuple[str, int]]:
    one = judge.tokenizer
    options = [("num_codebooks", one.quantizer.num_codebooks)]
    if one.encoder.latent_axes != one.signal.axes:
        options.insert(0, ("num_tokens", judge.codes[0].indices.shape[1]))
    return [(option, total) for option, total in options if total > 1]
