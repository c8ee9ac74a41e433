"""XY-Tokenizer: two encoders of Whisper's shape side by side, and a transformer in front of Vocos.

Reference:
    Gong et al., XY-Tokenizer: Mitigating the Semantic-Acoustic Conflict in Low-Bitrate Speech
    Codecs, 2025, https://arxiv.org/abs/2506.23325, section 3.
    Differs from the authors' code: a signal that does not fill its last position gets a token for
    it, so that nothing is lost at its end; the tokens before that one are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.backbones.base import Decoder, Encoder
from tokenizers_vq.backbones.vocos import VocosDecoder
from tokenizers_vq.backbones.whisper import HOP, N_FFT, SIXTEEN, check_speech
from tokenizers_vq.backbones.whisper_layers import SpeechStack
from tokenizers_vq.functional.mel import log_mel, mel_filters
from tokenizers_vq.functional.segments import Windows
from tokenizers_vq.types import SignalSpec

POOL = 4  # positions of the transformers that become one
STRIDE = 2 * POOL * HOP
WINDOWS = Windows(30 * SIXTEEN, 20 * SIXTEEN)
PLACES = WINDOWS.length // STRIDE  # latents of a window
N_FFT_OUT = 640  # of the spectra that samples are made of


class Listener(nn.Module):
    """Two convolutions, the second of which halves the rate, and a transformer.

    Args:
        width: width W.
        heads: attention heads.
        hidden: width inside the MLPs.
        layers: how many.
        mels: bands of the spectra.

    Shapes:
        spectra (B, mels, 2 N or 2 N + 1) -> (B, N, W)
    """

    def __init__(self, width: int, heads: int, hidden: int, layers: int, mels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, 2, padding=1)
        self.stack = SpeechStack(width, heads, hidden, layers, positions=POOL * PLACES)

    def forward(self, spectra: Tensor, mask: Tensor) -> Tensor:
        """Return rows ``(B, N, W)``; ``mask`` says which of them may be looked at."""
        h = F.gelu(self.conv1(spectra.to(self.conv1.weight.dtype)))
        h = F.gelu(self.conv2(h))[..., : mask.shape[-1]].mT
        rows: Tensor = self.stack(h, mask)
        return rows


class Down(nn.Module):
    """Four positions become one: themselves side by side, plus a gated map of them, and a norm.

    Args:
        width: width W.

    Shapes:
        (B, 4 N, W) -> (B, N, 4 W)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = POOL * width
        self.gate, self.up = (nn.Conv1d(width, wide, POOL, POOL, bias=False) for _ in range(2))
        self.down = nn.Linear(wide, wide, bias=False)
        self.norm = nn.LayerNorm(wide)

    def forward(self, x: Tensor) -> Tensor:
        """Return rows ``(B, N, 4 W)``."""
        gated = F.silu(self.gate(x.mT)) * self.up(x.mT)
        out: Tensor = self.norm(x.reshape(x.shape[0], -1, POOL * x.shape[2]) + self.down(gated.mT))
        return out


class XYEncoder(Encoder):
    """An encoder of what is said and one of how it sounds, joined, at 12.5 Hz of 16 kHz.

    Signals beyond 20 s are seen in windows of 30 s, of which the first 20 s count.

    Args:
        dim: latent width D; a linear map leads there where it is not ``4 * width``.
        signal: what the samples mean; one channel of 16 kHz.
        width: width of the transformers.
        heads: attention heads.
        hidden: width inside their MLPs.
        layers: of either encoder.
        adapters: layers of the two transformers behind them.
        mels: bands of the spectra.

    Shapes:
        x (B, 1, T) -> z (B, ceil(T / 1280), D)

    Raises:
        ConfigError: the signal is another, or heads do not divide the width.

    Example:
        >>> signal = SignalSpec("audio", 1, sample_rate=16000)
        >>> encoder = XYEncoder(64, signal, 16, 2, 32, layers=1, adapters=1)
        >>> encoder(torch.zeros(1, 1, 3000)).shape
        torch.Size([1, 3, 64])
    """

    any_length = True
    windows = WINDOWS
    filters: Tensor

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        adapters: int = 4,
        mels: int = 80,
    ) -> None:
        super().__init__(dim, (STRIDE,), signal)
        check_speech(signal, "xy")
        positions = POOL * PLACES
        self.said = Listener(width, heads, hidden, layers, mels)
        self.said_adapter = SpeechStack(width, heads, hidden, adapters, positions=positions)
        self.sound = Listener(width, heads, hidden, layers, mels)
        self.join = nn.Linear(2 * width, width)
        self.joined = SpeechStack(width, heads, hidden, adapters, positions=positions)
        self.down = Down(width)
        self.out = nn.Identity() if dim == POOL * width else nn.Linear(POOL * width, dim)
        filters = mel_filters(N_FFT // 2 + 1, mels, SIXTEEN, scale="slaney", norm="slaney")
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents ``(B, T', D)`` of signals ``(B, 1, T)``."""
        parts = list(self.pieces(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def pieces(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the latents ``(B, n, D)`` of window after window of ``x (B, 1, T)``.

        Raises:
            ShapeError: another rank, more channels, or no sample.
        """
        self.check_signal(x)
        for start, end, first, last in WINDOWS.spans(x.shape[-1]):
            yield self._latents(x[:, 0, start:end])[:, : -(-(last - first) // STRIDE)]

    def _latents(self, wave: Tensor) -> Tensor:
        """Return the latents of ``wave (B, n)``, at most one window."""
        samples = wave.shape[-1]
        count = POOL * -(-samples // STRIDE)
        # a frame more than the convolutions see, as there is silence behind the signal
        frames = min(2 * count + 1, WINDOWS.length // HOP)
        silence = min((frames + 3) * HOP, WINDOWS.length) - samples
        spectra = log_mel(F.pad(wave, (0, silence)), self.filters, HOP, frames)
        # the authors count started frames, and of these whole positions
        there = max(1, -(-samples // HOP) // 2)
        mask = torch.arange(count, device=wave.device)[None, :] < there
        said = self.said_adapter(self.said(spectra, mask), mask)
        joined = self.join(torch.cat([said, self.sound(spectra, mask)], dim=-1))
        latents: Tensor = self.out(self.down(self.joined(joined, mask)))
        return latents


class XYDecoder(Decoder):
    """A transformer at 12.5 Hz, one at 50 Hz, convolutions to 100 Hz, and Vocos.

    Args:
        dim: latent width D; a linear map starts there where it is not ``4 * width``.
        signal: what the samples mean; one channel of 16 kHz.
        width: width of the transformers.
        heads: attention heads.
        hidden: width inside their MLPs.
        layers: of the transformer at 50 Hz.
        adapters: of the one at 12.5 Hz.
        mels: channels in front of Vocos.
        vocos: its ``width``, ``inner`` and ``depth``.

    Shapes:
        z_q (B, T', D) -> x_hat (B, 1, 1280 T')

    Raises:
        ConfigError: as ``XYEncoder`` and ``VocosDecoder``.
    """

    any_length = True
    windows = WINDOWS

    def __init__(
        self,
        dim: int,
        signal: SignalSpec,
        width: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        adapters: int = 4,
        mels: int = 80,
        vocos: tuple[int, int, int] = (512, 4096, 30),
    ) -> None:
        super().__init__(dim, (STRIDE,), signal)
        check_speech(signal, "xy")
        wide = POOL * width
        self.inp = nn.Identity() if dim == wide else nn.Linear(dim, wide)
        self.narrow = nn.Linear(wide, width)
        self.adapter = SpeechStack(width, heads, hidden, adapters, positions=PLACES)
        self.widen = nn.Linear(width, wide)
        self.up = nn.ConvTranspose1d(wide, width, POOL, POOL, bias=False)
        self.stack = SpeechStack(width, heads, hidden, layers, positions=POOL * PLACES)
        self.conv1 = nn.ConvTranspose1d(width, width, 3, 2)
        self.conv2 = nn.ConvTranspose1d(width, mels, 3)
        self.vocos = VocosDecoder(mels, signal, HOP, *vocos, n_fft=N_FFT_OUT)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the layer that makes the spectra."""
        return self.vocos.last_layer

    def forward(self, z_q: Tensor) -> Tensor:
        """Return signals ``(B, 1, 1280 T')`` of latents ``(B, T', D)``, window by window."""
        self.check_latents(z_q)
        parts = []
        for start, end, first, last in WINDOWS.spans(z_q.shape[1] * STRIDE):
            x_hat = self._samples(z_q[:, start // STRIDE : end // STRIDE])
            parts.append(x_hat[..., : last - first])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _samples(self, z_q: Tensor) -> Tensor:
        """Return the samples of latents of at most one window."""
        h = self.widen(self.adapter(self.narrow(self.inp(z_q))))
        h = self.stack(self.up(h.mT).mT).mT
        h = F.gelu(self.conv2(F.gelu(self.conv1(h))))[..., : 2 * h.shape[-1]]
        x_hat: Tensor = self.vocos(h.mT)
        return x_hat
