"""The speech tokenizer in the package: what its card promises, on a sentence it never heard."""

from pathlib import Path

import pytest
import torch

from tokenizers_vq import cli, hub
from tokenizers_vq.bitstream import to_bytes
from tokenizers_vq.data.sound import read_sound
from tokenizers_vq.metrics.mel_distance import mel_distance

SENTENCE = Path(__file__).resolve().parents[1] / "notebooks" / "sentence.flac"
NAME = "spectrum_16k_rvq.speech"


@pytest.fixture(scope="module")
def tok():
    return hub.load(NAME)


@pytest.fixture(scope="module")
def x(tok):
    samples, done = read_sound(SENTENCE, tok.signal)
    assert not done
    return samples[None]


def test_more_codebooks_are_nearer_and_cost_more_bytes(tok, x):
    codes = tok.encode(x)
    assert codes.codebook_sizes == (256,) * 8
    errors, sizes = [], []
    for count in (1, 2, 4, 8):
        y = tok.decode(codes, num_codebooks=count)
        assert y.shape == x.shape
        errors.append(float(mel_distance(x[0, 0], y[0, 0], 16000)))
        sizes.append(len(to_bytes(tok.encode(x, num_codebooks=count), tok.prior)))
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)
    assert 8 * sizes[-1] / (x.shape[2] / 16000) < 4000  # bits per second, header included


def test_pieces_equal_the_whole(tok, x):
    stream = tok.stream()
    pieces = x.split(1234, dim=2)
    tokens = [stream.encode(piece, last=piece is pieces[-1]) for piece in pieces]
    assert torch.equal(torch.cat(tokens, 1), tok.encode(x).indices)


def test_a_later_sound_changes_no_earlier_token(tok, x):
    other = x.clone()
    other[..., 40_000:] = 0
    lead = 40_000 // 256 - 2
    assert torch.equal(tok.encode(other).indices[:, :lead], tok.encode(x).indices[:, :lead])


def test_the_command_needs_no_model_for_speech(tmp_path, capsys):
    tok = tmp_path / "s.tok"
    assert cli.main(["encode", str(SENTENCE), "-o", str(tok), "--codebooks", "4"]) == 0
    assert "4 of 8 codebooks" in capsys.readouterr().out
    assert cli.main(["decode", str(tok), "-o", str(tmp_path / "s.wav")]) == 0
    assert "5.30 s at 16000 Hz" in capsys.readouterr().out
