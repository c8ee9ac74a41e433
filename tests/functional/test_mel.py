"""Logarithmic mel spectra against a transform that is written out."""

import pytest
import torch
from reference import whisper

from tokenizers_vq.functional.mel import log_mel, mel_filters


@pytest.mark.parametrize(("length", "frames"), [(1, 1), (200, 1), (201, 2), (3333, 20), (3200, 20)])
def test_spectra_are_those_of_the_formulas(length, frames):
    filters = mel_filters(201, 80, 16000, scale="slaney", norm="slaney")
    x = torch.rand(2, length) - 0.5
    x[1] *= 0.01  # each item has its own loudest frame
    got = log_mel(x, filters, 160, frames)
    assert got.shape == (2, 80, frames)
    torch.testing.assert_close(got.double(), whisper.log_mel(x, 80, frames), rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(got[1:], log_mel(x[1:], filters, 160, frames))


def test_silence_has_one_level():
    filters = mel_filters(201, 20, 16000, scale="slaney", norm="slaney")
    assert torch.equal(log_mel(torch.zeros(1, 500), filters, 160, 3), torch.full((1, 20, 3), -1.5))


def test_blocks_do_not_show(monkeypatch):
    filters = mel_filters(201, 20, 16000, scale="slaney", norm="slaney")
    x = torch.rand(1, 2000) - 0.5
    whole = log_mel(x, filters, 160, 12)
    monkeypatch.setattr("tokenizers_vq.functional.mel.BLOCK", 5)
    torch.testing.assert_close(log_mel(x, filters, 160, 12), whole, rtol=0, atol=1e-6)


def test_filters_are_kept_as_numbers():
    with torch.device("meta"):
        assert mel_filters(201, 21, 16000).device.type == "cpu"
