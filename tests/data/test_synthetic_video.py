import pytest
import torch

from tokenizers_vq.data.synthetic_video import SyntheticVideo
from tokenizers_vq.errors import ConfigError


def test_videos_are_deterministic_different_and_in_range():
    videos, again = (SyntheticVideo(n=4, frames=5, size=16, seed=1) for _ in range(2))
    items = list(videos)
    assert all(x.shape == (3, 5, 16, 16) and x.dtype == torch.float32 for x in items)
    assert all(x.abs().max() <= 1 for x in items)
    assert all(torch.equal(x, again[5, i]) for i, x in enumerate(items))
    assert len({x.numpy().tobytes() for x in items}) == 4
    other = SyntheticVideo(n=4, frames=5, size=16)
    assert videos.sha256() == again.sha256() != other.sha256()
    assert videos.signal.kind == "video"


def test_things_move_but_little_between_frames():
    for x in SyntheticVideo(n=4, frames=17):
        steps = (x[:, 1:] - x[:, :-1]).square().mean()
        whole = (x[:, 1:] - x[:, :1]).square().mean()
        assert 1e-4 < steps < 0.4 * x.var()
        assert whole > 2 * steps


def test_a_longer_video_begins_like_a_shorter_one():
    short, long = (SyntheticVideo(n=1, frames=n, size=8)[0] for n in (3, 9))
    torch.testing.assert_close(long[:, :3], short)


def test_an_empty_set_is_an_error():
    with pytest.raises(ConfigError) as error:
        SyntheticVideo(frames=0)
    assert str(error.value) == (
        "SyntheticVideo: expected n, frames and size of 1 or more; got n=256, frames=0, size=32."
    )
