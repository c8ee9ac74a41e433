import pytest
import torch

from tokenizers_vq.data.synthetic_video import SyntheticVideo
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation.protocol import Protocol, load_protocol
from tokenizers_vq.evaluation.video_protocol import VideoProtocol


@pytest.mark.parametrize("name", ["video_fast", "video_rd", "video_rfvd"])
def test_the_committed_ones_are_of_videos(name):
    protocol = load_protocol(name)
    assert isinstance(protocol, VideoProtocol)
    assert isinstance(protocol, Protocol)
    assert (protocol.name, protocol.frames) == (name, 17)
    assert protocol.id == f"{name}@{protocol.hash}"


def test_the_hash_depends_on_what_only_videos_have():
    one, other = (VideoProtocol("x", frames=frames) for frames in (9, 17))
    assert one.hash != other.hash
    assert one.hash == load_protocol({"name": "x", "signal": "video", "frames": 9}).hash


def test_clips_are_cut_in_time_and_frames_as_pictures_are():
    clip = SyntheticVideo(n=1, frames=7, size=24)[0]
    whole = VideoProtocol("x", size=24, frames=5).prepare(clip)
    assert torch.equal(whole, to_uint8(clip[:, :5]))
    small = VideoProtocol("x", size=16, frames=5).prepare(clip)
    assert (small.shape, small.dtype) == ((3, 5, 16, 16), torch.uint8)
    for t in range(5):
        assert torch.equal(small[:, t], Protocol("x", size=16).prepare(clip[:, t]))
    with pytest.raises(DataError) as error:
        VideoProtocol("x", frames=9).prepare(clip)
    assert str(error.value) == (
        "protocol 'x': expected clips of at least 9 frames; got 7. Choose other data, or another "
        "protocol."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchors": ["jpeg_q75"]}, "there is no 'jpeg_q75'; choose one of first_frame"),
        ({"codecs": {"jpeg": {}}}, "there is no 'jpeg'; choose one of svtav1, x264"),
        ({"frames": 1}, "protocol 'x': expected frames of 2 or more, an even size and a"),
        ({"size": 63}, "got frames 17, size 63, frame_rate None"),
        ({"frame_rate": -1}, "frame_rate -1. Correct it."),
        ({"budgets": [2]}, "expected budgets that hold 1"),
        ({"sample_rate": 1}, "sample_rate"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError) as error:
        load_protocol({"name": "x", "signal": "video", **options})
    assert message in str(error.value)
