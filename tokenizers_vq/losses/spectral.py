"""Distances between the spectra of two sounds, as the published audio tokenizers train with.

Each loss is called with a signal and its reconstruction ``(B, C, T)`` and returns a ``()`` float32
tensor; channels are items. Spectra are magnitudes of windowed Fourier transforms; what differs
between the systems (scale of the mel bands, padding, logarithm, floor) is in the constructors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, ShapeError, unknown_name
from tokenizers_vq.functional.mel import mel_filters

FRAMES = ("center", "valid", "half", "aligned")


@dataclass(frozen=True)
class Spectrum:
    """Magnitudes of the short-time Fourier transform of a signal, through a Hann window.

    Attributes:
        n_fft: samples of a frame.
        hop: samples between frames; default a quarter of ``n_fft``.
        win: samples of the window, centred in the frame; default ``n_fft``.
        frames: ``center`` (frames around each multiple of the hop, the ends reflected), ``valid``
            (frames inside the signal), ``half`` (half of ``n_fft - hop`` reflected on both
            sides), or ``aligned`` (the same, and zeros that fill the last frame).
        normalized: divide by the norm of the window.

    Raises:
        ConfigError: another word in ``frames``.
    """

    n_fft: int
    hop: int | None = None
    win: int | None = None
    frames: str = "center"
    normalized: bool = False

    def __post_init__(self) -> None:
        if self.frames not in FRAMES:
            raise unknown_name("spectrum frames", self.frames, FRAMES)

    def __call__(self, x: Tensor) -> Tensor:
        """Return magnitudes ``(B * C, n_fft / 2 + 1, frames)`` of ``x (B, C, T)``.

        Raises:
            ShapeError: the signal is too short for one frame.
        """
        hop, win = self.hop or self.n_fft // 4, self.win or self.n_fft
        x = self._padded(x.float().flatten(0, -2), hop)
        window = torch.hann_window(win, device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            z = torch.stft(
                x,
                self.n_fft,
                hop,
                win,
                window,
                center=self.frames == "center",
                return_complex=True,
            )
            magnitude = z.abs()
        return magnitude / window.square().sum().sqrt() if self.normalized else magnitude

    def _padded(self, x: Tensor, hop: int) -> Tensor:
        """Return ``x (N, T)`` with the padding of its frames; check that a frame fits."""
        both = (self.n_fft - hop) // 2
        side = {"center": self.n_fft // 2, "aligned": both, "half": both, "valid": 0}
        if x.shape[-1] <= side[self.frames] or x.shape[-1] + 2 * side[self.frames] < self.n_fft:
            raise ShapeError(
                f"spectral loss: expected more than {max(side[self.frames], self.n_fft // 2)} "
                f"samples for frames of {self.n_fft}; got {x.shape[-1]}. Use longer crops."
            )
        if self.frames in ("center", "valid"):
            return x
        x = torch.nn.functional.pad(x[:, None], (both, both), mode="reflect")[:, 0]
        rest = -(x.shape[-1] - self.n_fft) % hop if self.frames == "aligned" else 0
        return torch.nn.functional.pad(x, (0, rest))


@dataclass(frozen=True)
class MelSpectrum:
    """A spectrum summed through mel filters.

    Attributes:
        spectrum: what is summed.
        sample_rate: Hz.
        mels: number of filters.
        f_min: Hz.
        f_max: Hz; default half the sample rate.
        scale: ``htk`` or ``slaney``.
        norm: None or ``slaney``.
        power: of the magnitudes that are summed.
    """

    spectrum: Spectrum
    sample_rate: int
    mels: int
    f_min: float = 0.0
    f_max: float | None = None
    scale: str = "htk"
    norm: str | None = None
    power: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``(B * C, mels, frames)`` of ``x (B, C, T)``."""
        filters = mel_filters(
            self.spectrum.n_fft // 2 + 1,
            self.mels,
            self.sample_rate,
            self.f_min,
            self.f_max,
            scale=self.scale,
            norm=self.norm,
        ).to(x.device)
        magnitude = self.spectrum(x)
        with torch.autocast(x.device.type, enabled=False):
            return (magnitude.pow(self.power).mT @ filters).mT


@dataclass(frozen=True)
class LogDistance:
    """The sum over spectra of mean absolute differences, of logarithms and of magnitudes.

    Attributes:
        spectra: what is compared.
        weights: of each spectrum; default 1.
        base: of the logarithm, 10 or e.
        floor: smallest value whose logarithm is taken.
        added: add the floor, else values below it are raised to it.
        power: of the magnitudes in the logarithm.
        log_weight: of the logarithms.
        linear_weight: of the magnitudes.

    Raises:
        ConfigError: as many weights as spectra are needed.
    """

    spectra: Sequence[Spectrum | MelSpectrum]
    weights: Sequence[float] = ()
    base: float = 10.0
    floor: float = 1e-5
    added: bool = False
    power: float = 1.0
    log_weight: float = 1.0
    linear_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.spectra):
            raise ConfigError(
                f"spectral loss: expected {len(self.spectra)} weights, one per spectrum; got "
                f"{len(self.weights)}. Correct the objective config."
            )

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss ``()`` for ``x`` and ``x_hat (B, C, T)``.

        Raises:
            ShapeError: the shapes differ, or the signal is too short.
        """
        _check_pair(x, x_hat)
        terms = []
        for spectrum, weight in zip(self.spectra, self.weights or _ones(self.spectra), strict=True):
            a, b = spectrum(x), spectrum(x_hat)
            term = self.log_weight * (self._log(a) - self._log(b)).abs().mean()
            if self.linear_weight:
                term = term + self.linear_weight * (a - b).abs().mean()
            terms.append(weight * term)
        return torch.stack(terms).sum()

    def _log(self, magnitude: Tensor) -> Tensor:
        raised = magnitude + self.floor if self.added else magnitude.clamp(min=self.floor)
        return self.power * raised.log() / math.log(self.base)


@dataclass(frozen=True)
class MultiScaleMel:
    """EnCodec's spectral loss: L1 of mel energies and L2 of their logarithms at five scales.

    Defossez et al., High Fidelity Neural Audio Compression, 2022,
    https://arxiv.org/abs/2210.13438, eq. 2, with the scales and the normalisation of its released
    training code: ``sum_e mean|a - b| + alpha_e mean (log10 a - log10 b)^2`` over windows of 2^e
    samples, hop a quarter, divided by ``sum_e (1 + alpha_e)``.

    Attributes:
        sample_rate: Hz.
        first: smallest e.
        last: largest e.
        mels: filters per scale.
        f_min: Hz.
        alphas: ``alpha_e = sqrt(2^e - 1)``, else 1, which is what the released configs train with.
        normalized: divide windows by their norm and the loss by the sum of the weights.
        floor: added before the logarithm.
    """

    sample_rate: int
    first: int = 6
    last: int = 10
    mels: int = 64
    f_min: float = 64.0
    alphas: bool = False
    normalized: bool = True
    floor: float = 1e-5

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss ``()`` for ``x`` and ``x_hat (B, C, T)``.

        Raises:
            ShapeError: the shapes differ, or the signal is too short.
        """
        _check_pair(x, x_hat)
        total, weight = x.new_zeros((), dtype=torch.float32), 0.0
        for e in range(self.first, self.last + 1):
            mel = MelSpectrum(
                Spectrum(2**e, frames="aligned", normalized=self.normalized),
                self.sample_rate,
                self.mels,
                self.f_min,
                power=2.0,
            )
            a, b = mel(x), mel(x_hat)
            alpha = math.sqrt(2**e - 1) if self.alphas else 1.0
            logs = (a + self.floor).log10() - (b + self.floor).log10()
            total = total + (a - b).abs().mean() + alpha * logs.square().mean()
            weight += 1 + alpha
        return total / weight if self.normalized else total


@dataclass(frozen=True)
class MultiResolutionSTFT:
    """Spectral convergence and log magnitude at several resolutions, averaged over them.

    Yamamoto et al., Parallel WaveGAN, 2020, https://arxiv.org/abs/1910.11480, eq. 4 to 6, with the
    floor of X-Codec-2's training code, which has windows of 2048 and 512 samples, hop a quarter.

    Attributes:
        n_ffts: samples of a frame, by resolution.
        hops: samples between frames.
        wins: samples of the Hann window.
        convergence: weight of ``|A - B|_F / |A|_F`` over the whole batch.
        magnitude: weight of ``mean|ln A - ln B|``.
        floor: added to the magnitudes.
    """

    n_ffts: Sequence[int] = (1024, 2048, 512)
    hops: Sequence[int] = (120, 240, 50)
    wins: Sequence[int] = (600, 1200, 240)
    convergence: float = 1.0
    magnitude: float = 1.0
    floor: float = 1e-7

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return the loss ``()`` for ``x`` and ``x_hat (B, C, T)``.

        Raises:
            ShapeError: the shapes differ, or the signal is too short.
        """
        _check_pair(x, x_hat)
        terms = []
        for n_fft, hop, win in zip(self.n_ffts, self.hops, self.wins, strict=True):
            spectrum = Spectrum(n_fft, hop, win)
            a, b = (spectrum(signal) + self.floor for signal in (x, x_hat))
            convergence = (a - b).norm() / a.norm()
            magnitude = (a.log() - b.log()).abs().mean()
            terms.append(self.convergence * convergence + self.magnitude * magnitude)
        return torch.stack(terms).mean()


def dac_mel(
    sample_rate: int, n_ffts: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048)
) -> LogDistance:
    """Return the training loss of DAC: log10 mel at seven scales, summed.

    Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023,
    https://arxiv.org/abs/2306.06546, section 3.4; weight 15 there. Also of X-Codec-2 and BigCodec.

    Args:
        sample_rate: Hz.
        n_ffts: samples of a window, by scale, with 5 filters for each 32.
    """
    return LogDistance([_slaney(n_fft, 5 * n_fft // 32, sample_rate) for n_fft in n_ffts])


def dac_mel_distance(sample_rate: int) -> LogDistance:
    """Return the mel distance that DAC reports: two scales, of squares and of magnitudes.

    Args:
        sample_rate: Hz.
    """
    spectra = [_slaney(2048, 150, sample_rate), _slaney(512, 80, sample_rate)]
    return LogDistance(spectra, power=2.0, linear_weight=1.0)


def dac_stft_distance() -> LogDistance:
    """Return the STFT distance that DAC reports: windows of 2048 and 512 samples."""
    return LogDistance([Spectrum(2048), Spectrum(512)], power=2.0, linear_weight=1.0)


def vocos_mel(sample_rate: int = 24000) -> LogDistance:
    """Return the loss of Vocos, WavTokenizer and SimVQ: ln mel of 100 bands; weight 45 there.

    Siuzdak, Vocos, 2023, https://arxiv.org/abs/2306.00814, section 3.

    Args:
        sample_rate: Hz.
    """
    mel = MelSpectrum(Spectrum(1024, 256), sample_rate, 100)
    return LogDistance([mel], base=math.e, floor=1e-7)


def speech_tokenizer_mel(
    sample_rate: int = 16000, weights: Sequence[float] = (45.0, 1.0, 1.0, 1.0)
) -> LogDistance:
    """Return the weighted ln mel distances of SpeechTokenizer at four scales.

    Zhang et al., SpeechTokenizer, 2023, https://arxiv.org/abs/2308.16692, section 3.3.

    Args:
        sample_rate: Hz.
        weights: by scale.
    """
    scales = ((1024, 240), (512, 120), (256, 60), (128, 30))
    spectra = [
        MelSpectrum(Spectrum(n_fft, hop, frames="half"), sample_rate, 80, norm="slaney")
        for n_fft, hop in scales
    ]
    return LogDistance(spectra, tuple(weights), base=math.e)


def _slaney(n_fft: int, mels: int, sample_rate: int) -> MelSpectrum:
    return MelSpectrum(Spectrum(n_fft), sample_rate, mels, scale="slaney", norm="slaney")


def _ones(spectra: Sequence[Spectrum | MelSpectrum]) -> list[float]:
    return [1.0] * len(spectra)


def _check_pair(x: Tensor, x_hat: Tensor) -> None:
    if x.shape != x_hat.shape:
        raise ShapeError(
            f"spectral loss: expected shape {tuple(x.shape)}; got {tuple(x_hat.shape)}. "
            "Crop the reconstruction to the signal."
        )
