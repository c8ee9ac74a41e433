"""Spectral losses against sums written out by hand, and what they must not do."""

import math

import pytest
import torch

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.losses import spectral

T = torch.arange(4096) / 16000


def tones():
    """Return two sounds ``(1, 1, 4096)`` that differ."""
    x = 0.4 * torch.sin(2 * math.pi * 440 * T) + 0.1 * torch.sin(2 * math.pi * 2500 * T)
    return x[None, None], (0.9 * x + 0.02 * torch.sin(2 * math.pi * 3100 * T))[None, None]


def by_hand(x, n_fft, hop):
    """Return ``|DFT|`` of Hann-windowed frames around each multiple of the hop."""
    x = torch.nn.functional.pad(x, (n_fft // 2, n_fft // 2), mode="reflect")[0, 0].double()
    n = torch.arange(n_fft)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / n_fft)
    frames = x.unfold(0, n_fft, hop) * window
    basis = torch.exp(-2j * math.pi * torch.outer(n[: n_fft // 2 + 1], n).double() / n_fft)
    return (basis @ frames.T.to(basis.dtype)).abs()


def test_the_spectrum_is_a_windowed_fourier_transform():
    x, _ = tones()
    found = spectral.Spectrum(128, 32)(x)[0]
    torch.testing.assert_close(found.double(), by_hand(x, 128, 32), atol=2e-5, rtol=1e-5)


def test_a_mel_loss_is_the_mean_distance_of_logarithms():
    x, y = tones()
    filters = spectral.mel_filters(513, 100, 24000).double()
    a, b = (filters.T @ by_hand(s, 1024, 256) for s in (x, y))
    wanted = (a.clamp(min=1e-7).log() - b.clamp(min=1e-7).log()).abs().mean()
    assert spectral.vocos_mel()(x, y).item() == pytest.approx(wanted.item(), rel=1e-3)


def test_multi_resolution_stft_is_convergence_and_distance_of_logarithms():
    x, y = tones()
    terms = []
    for n_fft, hop in ((2048, 512), (512, 128)):
        a, b = (by_hand(s, n_fft, hop) + 1e-7 for s in (x, y))
        terms.append((a - b).norm() / a.norm() + (a.log() - b.log()).abs().mean())
    loss = spectral.MultiResolutionSTFT((2048, 512), (512, 128), (2048, 512))
    assert loss(x, y).item() == pytest.approx(sum(terms).item() / 2, rel=1e-3)


LOSSES = {
    "dac_mel": spectral.dac_mel(16000),
    "dac_mel_distance": spectral.dac_mel_distance(16000),
    "dac_stft_distance": spectral.dac_stft_distance(),
    "vocos_mel": spectral.vocos_mel(),
    "speech_tokenizer_mel": spectral.speech_tokenizer_mel(),
    "multi_scale_mel": spectral.MultiScaleMel(16000),
    "multi_resolution_stft": spectral.MultiResolutionSTFT(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_zero_for_equals_and_has_a_finite_gradient(name):
    x, y = tones()
    y = torch.cat([y[..., :3000], torch.zeros(1, 1, 1096)], -1).requires_grad_()  # silence, too
    assert LOSSES[name](x, x).item() == 0
    loss = LOSSES[name](x, y)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() > 0
    assert y.grad.isfinite().all()
    assert y.grad.abs().sum() > 0


def test_channels_are_items():
    x, y = tones()
    loss = spectral.vocos_mel()
    both = loss(torch.cat([x, y], 1), torch.cat([y, y], 1))
    assert both.item() == pytest.approx(loss(x, y).item() / 2, rel=1e-5)


def test_multi_scale_mel_normalises_windows_and_weights():
    x, y = tones()
    for normalized, norm in ((True, math.sqrt(0.375 * 64)), (False, 1.0)):  # of a Hann window
        filters = spectral.mel_filters(33, 64, 16000, 64.0).double()
        spectra = [spectral.Spectrum(64, frames="aligned")(s)[0].double() / norm for s in (x, y)]
        a, b = (filters.T @ s.square() for s in spectra)
        logs = ((a + 1e-5).log10() - (b + 1e-5).log10()).square().mean()
        wanted = (a - b).abs().mean() + math.sqrt(63) * logs
        loss = spectral.MultiScaleMel(16000, 6, 6, alphas=True, normalized=normalized)(x, y)
        share = 1 / (1 + math.sqrt(63)) if normalized else 1.0
        assert loss.item() == pytest.approx(share * wanted.item(), rel=1e-4)


def test_errors():
    x, _ = tones()
    with pytest.raises(ShapeError) as error:
        spectral.vocos_mel()(x, x[..., 1:])
    assert str(error.value) == (
        "spectral loss: expected shape (1, 1, 4096); got (1, 1, 4095). "
        "Crop the reconstruction to the signal."
    )
    with pytest.raises(ShapeError) as error:
        spectral.vocos_mel()(x[..., :512], x[..., :512])
    assert str(error.value) == (
        "spectral loss: expected more than 512 samples for frames of 1024; got 512. "
        "Use longer crops."
    )
    with pytest.raises(ConfigError) as error:
        spectral.LogDistance([spectral.Spectrum(64)], [1.0, 2.0])
    assert str(error.value) == (
        "spectral loss: expected 1 weights, one per spectrum; got 2. Correct the objective config."
    )
    with pytest.raises(ConfigError, match="spectrum frames: there is no 'left'"):
        spectral.Spectrum(64, frames="left")
    with pytest.raises(ConfigError, match="mel scale: there is no 'bark'"):
        spectral.mel_filters(33, 4, 16000, scale="bark")
    with pytest.raises(ConfigError, match="mel norm: there is no 'area'"):
        spectral.mel_filters(33, 4, 16000, norm="area")
