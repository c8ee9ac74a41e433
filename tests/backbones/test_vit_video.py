import pytest
import torch

from tokenizers_vq.backbones.vit2d import ViT2dDecoder, ViT2dEncoder
from tokenizers_vq.backbones.vit_video import (
    ViTVideoDecoder,
    ViTVideoEncoder,
    block_causal,
    placed,
)
from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.registry import build
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

SMALL = {"size": 16, "patch": 8, "width": 16, "layers": 2, "heads": 2}
VIDEO, IMAGE = SignalSpec("video"), SignalSpec("image")


def parts(frames=9):
    """An encoder and decoder whose positions in time are not 0, as after training."""
    torch.manual_seed(0)
    pair = [made(6, VIDEO, frames=frames, **SMALL) for made in (ViTVideoEncoder, ViTVideoDecoder)]
    for part in pair:
        torch.nn.init.normal_(part.times)
    return [part.eval() for part in pair]


def test_a_row_sees_its_frame_and_those_before():
    assert block_causal(2, 1, 2).int().tolist() == [
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]


@torch.no_grad()
@pytest.mark.parametrize("changed", [1, 3])
def test_no_frame_sees_those_after_it_and_every_one_those_before(changed):
    encoder, decoder = parts()
    x = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    other = x.clone()
    other[:, :, changed:] = torch.rand(1, 3, 5 - changed, 16, 16) * 2 - 1
    z, z_other = encoder(x), encoder(other)
    assert torch.equal(z[:, :changed], z_other[:, :changed])
    x_hat, x_other = decoder(z), decoder(z_other)
    assert torch.equal(x_hat[:, :, :changed], x_other[:, :, :changed])
    # a change of the first frame reaches the last place of the last one
    first = x.clone()
    first[:, :, 0, 0, 0] += 0.5
    assert (encoder(first)[:, -1, -1, -1] != z[:, -1, -1, -1]).any()
    assert (decoder(encoder(first))[:, :, -1] != x_hat[:, :, -1]).any()


@torch.no_grad()
def test_a_picture_is_a_video_of_one_frame_with_the_weights_of_vit2d():
    torch.manual_seed(0)
    pictures = ViT2dEncoder(6, IMAGE, **SMALL), ViT2dDecoder(6, IMAGE, **SMALL)
    videos = ViTVideoEncoder(6, VIDEO, **SMALL), ViTVideoDecoder(6, VIDEO, **SMALL)
    for picture, video in zip(pictures, videos, strict=True):
        missing, unknown = video.load_state_dict(picture.state_dict(), strict=False)
        assert (missing, unknown) == (["times"], [])
    x = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    z = pictures[0](x[:, :, 0])
    torch.testing.assert_close(videos[0](x)[:, 0], z)
    torch.testing.assert_close(videos[1](z[:, None])[:, :, 0], pictures[1](z))


@pytest.mark.parametrize("sizes", [[1], [3, 1, 2], [0, 2, 0]], ids=str)
def test_a_stream_gives_what_the_whole_video_gives(sizes):
    torch.manual_seed(0)
    tok = Tokenizer.from_config(tokenizer_config("tiny_vit_video", "fsq")).eval()
    for part in (tok.encoder, tok.decoder):
        torch.nn.init.normal_(part.times)
    x = torch.rand(2, 3, 7, 15, 24) * 2 - 1
    whole = tok.encode(x)
    assert whole.indices.shape[1:4] == (7, 2, 3)
    stream, start, tokens, out, turn = tok.stream(), 0, [], [], 0
    while start < 7:
        size = sizes[turn % len(sizes)]
        piece, start, turn = x[:, :, start : start + size], start + size, turn + 1
        tokens.append(stream.encode(piece, last=start >= 7))
        out.append(stream.decode(tokens[-1], last=start >= 7))
    assert torch.equal(torch.cat(tokens, 1), whole.indices)
    torch.testing.assert_close(torch.cat(out, 2), tok.decode(whole), rtol=1e-4, atol=1e-5)


def test_positions_of_other_grids_are_between_those_of_the_own():
    positions = torch.arange(4.0)[:, None].repeat(1, 2)
    assert placed(positions, (2, 2))[..., 0].tolist() == [[0, 1], [2, 3]]
    wide = placed(positions, (2, 4))
    assert wide.shape == (2, 4, 2)
    assert (wide[0].diff(dim=0) > 0).all()
    torch.testing.assert_close(wide.mean((0, 1)), positions.mean(0))


def test_the_published_size_has_the_pictures_parameters_and_positions_in_time():
    counts = {}
    for name in ("vit2d_bsq_128_b18", "vit_video_bsq_128_b18"):
        config = read_config("backbone", name)
        shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
        with torch.device("meta"):
            pair = [build(part, config[part], **shared) for part in ("encoder", "decoder")]
        counts[name] = sum(p.numel() for part in pair for p in part.parameters())
    assert counts["vit_video_bsq_128_b18"] == counts["vit2d_bsq_128_b18"] + 2 * 17 * 768
    assert counts["vit2d_bsq_128_b18"] == 173_636_562


def test_mistakes_are_named():
    encoder, decoder = parts(frames=4)
    with pytest.raises(ShapeError) as error:
        encoder(torch.zeros(1, 3, 5, 16, 16))
    assert str(error.value) == (
        "ViTVideoEncoder: expected at most 4 frames; got 5. Cut the video, or set frames in the "
        "backbone config."
    )
    _, state = decoder.step(torch.zeros(1, 3, 2, 2, 6), None, False)
    with pytest.raises(ShapeError, match="ViTVideoDecoder: expected at most 4 frames; got 5"):
        decoder.step(torch.zeros(1, 2, 2, 2, 6), state, False)
    with pytest.raises(ConfigError) as error:
        ViTVideoEncoder(6, VIDEO, frames=0)
    assert str(error.value) == (
        "vit_video: expected frames of 1 or more; got 0. Correct the backbone config."
    )
    with pytest.raises(ShapeError, match=r"expected sample axes in multiples of \(1, 8, 8\)"):
        encoder(torch.zeros(1, 3, 2, 12, 16))
