"""Causal video of state-space mixers: lengths, causality, pieces, symbols."""

import math

import pytest
import torch

from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.registry import build
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes, SignalSpec

VIDEO = SignalSpec("video")
SMALL = {
    "name": "mamba_video", "widths": [8, 12], "pools": [[2, 2, 2], [2, 2, 1]], "depths": [1, 1],
    "mixer": {"kind": "mamba1", "states": 2}, "mlp": 1,
}  # fmt: skip


def tokenizer(encoder=SMALL, quantizer=None):
    torch.manual_seed(0)
    return Tokenizer.from_config(
        {
            "signal": {"kind": "video"}, "dim": 8, "encoder": encoder, "decoder": encoder,
            "quantizer": quantizer or {"name": "fsq", "levels": [8, 5, 5]},
        }
    ).eval()  # fmt: skip


@pytest.fixture(scope="module", params=["mamba1", "mamba2"])
def tok(request):
    mixer = {"kind": request.param, "states": 2}
    mixer |= {"head": 4} if request.param == "mamba2" else {}
    return tokenizer({**SMALL, "mixer": mixer})


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 17])
def test_every_number_of_frames_comes_back(tok, frames):
    x = torch.rand(1, 3, frames, 7, 6) * 2 - 1
    codes = tok.encode(x)
    assert codes.indices.shape == (1, 1 + math.ceil((frames - 1) / 4), 2, 3, 1)
    assert tok.decode(codes).shape == x.shape
    assert tok.decode(codes.indices).shape == (1, 3, 1 + 4 * (codes.indices.shape[1] - 1), 8, 6)


@torch.no_grad()
def test_a_change_of_a_frame_never_changes_earlier_latents(tok):
    x = torch.rand(1, 3, 17, 8, 8) * 2 - 1
    z = tok.encoder(x)
    for t in (1, 5, 9, 16):
        other = x.clone()
        other[:, :, t] = torch.rand(3, 8, 8) * 2 - 1
        changed = tok.encoder(other)
        first = (t + 3) // 4  # the latent frame that holds frame t
        assert torch.equal(changed[:, :first], z[:, :first])
        assert not torch.equal(changed[:, first], z[:, first])
        if first + 1 < z.shape[1]:  # and the past is remembered
            assert not torch.equal(changed[:, first + 1], z[:, first + 1])


@torch.no_grad()
def test_a_picture_is_the_first_frame_of_any_video(tok):
    x = torch.rand(1, 3, 9, 8, 8) * 2 - 1
    torch.testing.assert_close(tok.encoder(x[:, :, :1]), tok.encoder(x)[:, :1])
    z = tok.encoder(x)
    torch.testing.assert_close(tok.decoder(z[:, :1]), tok.decoder(z)[:, :, :1])


@pytest.mark.parametrize("sizes", [[1], [4], [3, 1, 7], [0, 2, 0]], ids=str)
@pytest.mark.parametrize("frames", [1, 14, 17])
def test_a_stream_gives_what_the_whole_video_gives(tok, sizes, frames):
    x = torch.rand(2, 3, frames, 7, 6) * 2 - 1
    whole = tok.encode(x)
    stream, start, tokens, out, turn = tok.stream(), 0, [], [], 0
    while start < frames:
        size = sizes[turn % len(sizes)]
        turn += 1
        piece, start = x[:, :, start : start + size], start + size
        tokens.append(stream.encode(piece, last=start >= frames))
        out.append(stream.decode(tokens[-1], last=start >= frames))
    assert torch.equal(torch.cat(tokens, 1), whole.indices)
    x_hat = tok.decode(whole)
    torch.testing.assert_close(torch.cat(out, 2), x_hat, rtol=1e-4, atol=1e-5)


def test_a_stream_without_end_takes_constant_memory(tok):
    from tokenizers_vq.backbones.streaming import tensors_of

    stream, sizes = tok.stream(), []
    for _ in range(12):
        tokens = stream.encode(torch.zeros(1, 3, 4, 8, 8))
        stream.decode(tokens)
        state = [*tensors_of(stream.state.encoder), *tensors_of(stream.state.decoder)]
        sizes.append(sum(part.untyped_storage().nbytes() for part in state))
    assert len(set(sizes[2:])) == 1
    assert stream.latency == 1


def test_streams_name_what_is_wrong(tok):
    stream = tok.stream()
    stream.encode(torch.zeros(1, 3, 1, 8, 8))
    with pytest.raises(ShapeError) as error:
        stream.encode(torch.zeros(1, 3, 1, 8, 6))
    assert str(error.value) == (
        "stream: expected frames of (8, 8) like those before; got (8, 6). Begin another stream."
    )
    with pytest.raises(ShapeError, match=r"expected shape \(B, N, h, w, 1\)"):
        stream.decode(torch.zeros(1, 1, 1, dtype=torch.int64))


def test_a_file_of_a_video_gives_its_tokens_back(tmp_path):
    tok = tokenizer()
    codes = tok.encode(torch.rand(2, 3, 6, 8, 8) * 2 - 1)
    codes.save(tmp_path / "clip.tok")
    again = Codes.load(tmp_path / "clip.tok")
    assert torch.equal(again.indices, codes.indices)
    assert again.shape == (6, 8, 8)
    assert torch.equal(tok.decode(again), tok.decode(codes))
    assert codes.bpp == pytest.approx(3 * 2 * 4 * math.log2(200) / (6 * 8 * 8))


def test_channels_split_at_a_coarser_grid_keep_the_number_of_symbols():
    fine = read_config("backbone", "mamba_video_4x8x8")
    coarse = read_config("backbone", "mamba_video_4x16x16")
    with torch.device("meta"):
        grids = [
            build("encoder", c["encoder"], dim=c["dim"], signal=VIDEO).grid((17, 256, 256))
            for c in (fine, coarse)
        ]
        head = build("quantizer", read_config("quantizer", "csq_video"), dim=256)
    assert grids == [(5, 32, 32), (5, 16, 16)]
    assert head.codebook_sizes == (64000,) * 4
    assert math.prod(grids[1]) * head.num_codebooks == math.prod(grids[0])
    # and the bits of Cosmos' 64,000 codes at 4 x 8 x 8
    bits = math.prod(grids[1]) * head.bits_per_position
    assert bits == pytest.approx(math.prod(grids[0]) * math.log2(64000))


def test_one_group_is_the_head_itself_between_two_linear_maps():
    levels = {"name": "fsq", "levels": [8, 5, 5]}
    torch.manual_seed(0)
    split = build("quantizer", {"name": "grouped", "code_dim": 3, "groups": [levels]}, dim=8).eval()
    alone = build("quantizer", levels, dim=8).eval()
    alone.project_in.load_state_dict(split.project_in.state_dict())
    alone.project_out.load_state_dict(split.project_out.state_dict())
    z = torch.randn(1, 2, 2, 2, 8)
    assert torch.equal(split(z).z_q, alone(z).z_q)
    assert torch.equal(split(z).indices, alone(z).indices)
    assert torch.equal(split.decode(split(z).indices), split(z).z_q)


def test_published_sizes_compose():
    sizes = {}
    for name in ("mamba_video_4x8x8", "mamba_video_4x16x16", "tiny_mamba_video"):
        with torch.device("meta"):
            tok = Tokenizer.from_config(tokenizer_config(name, "csq_video"))
        sizes[name] = sum(p.numel() for p in tok.parameters())
    assert sizes["tiny_mamba_video"] < 300_000
    assert sizes["mamba_video_4x8x8"] > 100_000_000


def test_wrong_options_are_named():
    for change, text in (
        ({"depths": [1]}, "mamba_video: expected one width, pool and depth per stage; got 2, 2 and "
                          "1. Correct the backbone config."),
        ({"pools": [[2, 2, 2], [2, 2]]}, "MambaVideoEncoder: expected pools of three numbers of at "
         "least 1: frames, rows, columns; got [[2, 2, 2], [2, 2]]. Correct the backbone config."),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            build("encoder", {**SMALL, **change}, dim=8, signal=VIDEO)
        assert str(error.value) == text
    with pytest.raises(ConfigError, match="there is no 'lstm'; choose one of mamba1, mamba2"):
        build("encoder", {**SMALL, "mixer": {"kind": "lstm"}}, dim=8, signal=VIDEO)
    with pytest.raises(ConfigError, match="expected a signal with 3 sample axes"):
        build("encoder", SMALL, dim=8, signal=SignalSpec("image"))
    encoder = build("encoder", SMALL, dim=8, signal=VIDEO)
    with pytest.raises(ShapeError) as error:
        encoder(torch.zeros(1, 3, 4, 8, 8))
    assert str(error.value).startswith(
        "MambaVideoEncoder: expected sample axes in multiples of (4, 4, 2) after the first "
        "(1, 4, 2); got (4, 8, 8)."
    )
