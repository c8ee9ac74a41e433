import numpy as np
import pytest
import torch

from tokenizers_vq.data.synthetic_video import SyntheticVideo
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.evaluation.video_codecs import SCALES, _Coder, _without_text, code_video


@pytest.fixture(scope="module")
def video():
    return to_uint8(SyntheticVideo(n=1, frames=5, size=64)[0]).permute(1, 2, 3, 0).numpy()


@pytest.mark.parametrize("codec", ["x264", "svtav1"])
def test_more_bytes_are_used_for_less_error(codec, video):
    coded = [code_video(video, codec, budget) for budget in (900, 5000)]
    errors = [np.square(one.video.astype(float) - video).mean() for one in coded]
    assert all(one.video.shape == video.shape and one.fits for one in coded)
    assert coded[0].n_bytes <= 900 < coded[1].n_bytes <= 5000
    assert errors[1] < errors[0] < video.astype(float).var()
    assert coded[1].crf < coded[0].crf


def test_the_smallest_stream_may_be_over_the_budget(video):
    coded = code_video(video, "x264", 10)
    assert (coded.fits, coded.crf) == (False, 51)
    assert coded.n_bytes > 10


def test_mistakes_are_named(video):
    with pytest.raises(ConfigError, match="there is no 'vp9'; choose one of svtav1, x264"):
        code_video(video, "vp9", 100)
    with pytest.raises(ShapeError) as error:
        code_video(video[:, 1:], "x264", 100)
    assert str(error.value) == (
        "code_video: expected uint8 frames (T, H, W, 3) with even sides; got uint8 "
        "(5, 63, 64, 3). Codecs of 4:2:0 take no others."
    )
    with pytest.raises(ConfigError, match="expected a budget of at least 1 byte; got 0"):
        code_video(torch.zeros(1, 2, 2, 3, dtype=torch.uint8).numpy(), "x264", 0)


def test_frames_may_be_shrunk_where_that_helps(video):
    noisy = np.random.default_rng(0).integers(0, 256, video.shape, dtype=np.uint8)
    fast = {"preset": "ultrafast"}
    budget = code_video(noisy, "x264", 1, options=fast).n_bytes - 1
    own = code_video(noisy, "x264", budget, options=fast)
    best = code_video(noisy, "x264", budget, scales=SCALES, options=fast)
    assert (own.fits, best.fits) == (False, True)
    assert best.scale < 1
    assert best.video.shape == video.shape
    same = code_video(video, "x264", 5000, scales=SCALES, options=fast)
    assert same.scale == 1


def test_the_text_of_x264_is_not_counted(video):
    packets = _Coder("x264", 25, {}).encode(video, 51)
    assert not any(b"x264" in packet for packet in packets)
    # as the encoder made it: a text of several hundred bytes, and the rest
    start, text = b"\0\0\1", b"\x06\x05words"
    unit, picture = b"\x67abc", b"\x65de\0f"
    assert _without_text(start + text + b"\0" + start + unit + start + picture) == (
        b"\0" + start + unit + start + picture
    )
