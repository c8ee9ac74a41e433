from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from tokenizers_vq.data import video
from tokenizers_vq.data.video import VideoFolder, read_frames
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError


def write(path, frames=12, size=(24, 32), rate=8, codec="mpeg4"):
    """A video whose frame n is of grey 20 n, with a white left edge."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"qscale": "2"}
        for n in range(frames):
            pixels = np.full((*size, 3), 20 * n, np.uint8)
            pixels[:, :8] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def greys(clip):
    """The grey of every frame, in steps of 20."""
    middle = (clip[:, :, :, clip.shape[-1] // 2] + 1) * 127.5 / 20
    return middle.mean((0, 2)).round().int().tolist()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "deep").mkdir()
    write(folder / "a.avi")
    write(folder / "deep" / "b.mp4", frames=12)
    write(folder / "short.avi", frames=3)
    whole = write(folder / "cut.avi", frames=12).read_bytes()
    start = whole.index(b"movi")  # what is before is whole
    (folder / "cut.avi").write_bytes(whole[: (2 * start + len(whole)) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mkv").write_text("no video")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_clips_are_the_first_frames_and_bad_files_are_counted(root):
    videos = VideoFolder(root, frames=9, size=16)
    assert videos.ids == ["a.avi", "deep/b.mp4"]
    assert set(videos.skipped) == {"cut.avi", "empty.mp4", "short.avi", "text.mkv"}
    assert videos.skipped["short.avi"] == "only 3 of 9 frames"
    assert videos.skipped["empty.mp4"] == "an empty file"
    assert videos.skipped["text.mkv"].startswith("not readable (")
    assert len(videos.sha256()) == 64
    for clip in videos:
        assert (clip.shape, clip.dtype) == ((3, 9, 16, 16), torch.float32)
        assert greys(clip) == list(range(9))


def test_training_clips_are_crops_in_space_and_time_of_one_draw(root):
    videos = VideoFolder(root, frames=3, size=16, train=True, seed=1, exclude=["cut*"])
    clips = [videos[epoch, 0] for epoch in range(8)]
    assert all(torch.equal(clip, videos[epoch, 0]) for epoch, clip in enumerate(clips))
    starts = {tuple(greys(clip)) for clip in clips}
    assert len(starts) > 2
    assert all(b - a == 1 for start in starts for a, b in pairwise(start))
    edges = [(clip > 0.9).all(0).all(1) for clip in clips]  # where each frame is white
    assert all(torch.equal(frame, edge[0]) for edge in edges for frame in edge)
    assert len({edge[0].numpy().tobytes() for edge in edges}) > 2


def test_another_frame_rate_shows_what_is_there_at_its_time(root):
    path = root / "a.avi"
    for rate, expected in ((4, [0, 2, 4]), (16, [0, 0, 1]), (8, [0, 1, 2])):
        frames = read_frames(path, 0.0, 3, rate)
        assert [round(np.asarray(f)[0, -1].mean() / 20) for f in frames] == expected
    late = read_frames(path, 0.5, 2)
    assert [round(np.asarray(f)[0, -1].mean() / 20) for f in late] == [4, 5]


def test_a_file_that_breaks_in_a_run_is_replaced_by_the_next(root):
    videos = VideoFolder(root, frames=9, size=16, train=True, exclude=["text*", "empty*", "short*"])
    assert videos.ids == ["a.avi", "cut.avi", "deep/b.mp4"]
    assert torch.isfinite(videos[1]).all()
    assert list(videos.skipped) == ["cut.avi"]


def test_mistakes_are_named(root, tmp_path, monkeypatch):
    with pytest.raises(DataError) as error:
        VideoFolder(tmp_path / "none")
    assert str(error.value) == (
        f"VideoFolder: expected a folder; got '{tmp_path / 'none'}', which is none. "
        "Set data.root to a folder of video files."
    )
    with pytest.raises(ConfigError, match="got frames=0, size=64, frame_rate=None"):
        VideoFolder(root, frames=0)
    with pytest.raises(ConfigError, match="there is no 'test'; choose one of all, train, val"):
        VideoFolder(root, split="test")
    with pytest.raises(DataError, match="got 0 files, none of them usable"):
        VideoFolder(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError) as error:
        video._av()
    assert str(error.value) == (
        'VideoFolder: expected the package av; got none. Run pip install "tokenizers_vq[video]".'
    )
