import numpy as np
import pytest
import torch

from tokenizers_vq.data.motion import LEG, MotionFolder, read_motion
from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.functional.motion import features_from_joints, joints_from_features, mirrored

WALKS = SyntheticMotion(n=3, frames=40, seed=2)
CMU = """Hips 0 1 0
LeftUpLeg 1 0 0
  LeftLeg 0 -4 0
  LeftFoot 0 -4 0
  LeftToeBase 0 0 1
RightUpLeg -1 0 0
  RightLeg 0 -4 0
  RightFoot 0 -4 0
  RightToeBase 0 0 1
LowerBack 0 0 0
  Spine 0 1 0
  Spine1 0 1 0
  Neck1 0 1 0
  Head 0 1 0
LeftShoulder 0 2 0
  LeftArm 1 0 0
  LeftForeArm 0 -3 0
  LeftHand 0 -3 0
RightShoulder 0 2 0
  RightArm -1 0 0
  RightForeArm 0 -3 0
  RightHand 0 -3 0
"""


def bvh(frames, frame_time, drop=""):
    """A figure that slides along z by 1 a frame; each line of CMU hangs on the one above it."""
    lines = ["HIERARCHY"]
    kept = [line for line in CMU.splitlines() if not drop or drop not in line]
    depth = 0
    for number, line in enumerate(kept):
        if number > 1 and not line.startswith(" "):
            lines += ["}"] * (depth - 1)
            depth = 1
        name, *offset = line.split()
        channels = "3 Xposition Yposition Zposition" if depth == 0 else "0"
        lines += [f"{'JOINT' if depth else 'ROOT'} {name}", "{", f"OFFSET {' '.join(offset)}"]
        lines += [f"CHANNELS {channels}"]
        depth += 1
    rows = [f"0 9 {frame}" for frame in range(frames)]
    head = ["}" * 1] * depth + ["MOTION", f"Frames: {frames}", f"Frame Time: {frame_time}"]
    return "\n".join([*lines, *head, *rows])


@pytest.fixture
def root(tmp_path):
    (tmp_path / "new_joint_vecs").mkdir()
    for index in range(3):
        np.save(tmp_path / "new_joint_vecs" / f"{index}.npy", WALKS[index].T.numpy())
    (tmp_path / "train.txt").write_text("0\n2\n")
    return tmp_path


def test_features_joints_and_bvh_become_features(root):
    joints = WALKS.joints(1)
    np.save(root / "joints.npy", joints.astype(np.float32))
    (root / "cmu.bvh").write_text(bvh(61, 1 / 60))
    data = MotionFolder(root, frames=None)
    assert data.ids == ["cmu.bvh", "joints.npy", *(f"new_joint_vecs/{i}.npy" for i in range(3))]
    assert torch.equal(data[2], WALKS[0])
    torch.testing.assert_close(data[1], WALKS[1], atol=1e-4, rtol=0)
    # 60 steps of 1/60 s are 1 s: 21 frames at 20 per second, 20 rows
    assert data[0].shape == (263, 20)
    places = joints_from_features(data[0].T[None])[0]
    # legs of 4 + 4 become 0.82 m; 1 a frame at 60 per second is 3 a frame at 20
    scale = LEG / 8
    torch.testing.assert_close(places[5, 0, 2], torch.tensor(5 * 3 * scale), atol=1e-5, rtol=0)
    torch.testing.assert_close(places[0, 4, 1], torch.tensor(4 * scale), atol=1e-5, rtol=0)
    torch.testing.assert_close(places[0, 3, 1], torch.tensor(8.5 * scale), atol=1e-5, rtol=0)
    assert data.signal.channels == 263


def test_crops_are_drawn_by_epoch_and_mirrored_at_random(root):
    data = MotionFolder(root, frames=8, train=True, seed=3)
    again = MotionFolder(root, frames=8, train=True, seed=3)
    crops = [data[epoch, 0] for epoch in range(30)]
    assert all(torch.equal(crop, again[epoch, 0]) for epoch, crop in enumerate(crops))
    assert len({crop.numpy().tobytes() for crop in crops}) > 15
    whole = WALKS[0]
    windows = whole.unfold(1, 8, 1).movedim(1, 0)
    flipped = mirrored(whole.T).T.unfold(1, 8, 1).movedim(1, 0)
    found = [[bool((w == crop).all((1, 2)).any()) for w in (windows, flipped)] for crop in crops]
    assert all(a != b for a, b in found)
    assert 5 < sum(a for a, _ in found) < 25
    assert torch.equal(MotionFolder(root, frames=8)[0], whole[:, :8])


def test_listings_and_patterns_choose(root):
    listed = MotionFolder(root, 8, listing="train.txt")
    assert listed.ids == ["new_joint_vecs/0.npy", "new_joint_vecs/2.npy"]
    assert MotionFolder(root, 8, only=["*/1.npy"]).ids == ["new_joint_vecs/1.npy"]
    assert len(MotionFolder(root, 8, exclude=["*/1.npy"])) == 2
    split = [MotionFolder(root, 8, split=name).ids for name in ("train", "val")]
    assert sorted(split[0] + split[1]) == MotionFolder(root, 8).ids


def test_what_cannot_be_used_is_left_out_and_named(root):
    np.save(root / "Mean.npy", np.zeros(263, np.float32))
    np.save(root / "nan.npy", np.full((30, 263), np.nan, np.float32))
    np.save(root / "short.npy", np.zeros((3, 263), np.float32))
    np.save(root / "millimetres.npy", np.full((30, 263), 800, np.float32))
    np.save(root / "one.npy", np.zeros((1, 22, 3)))
    (root / "other.bvh").write_text(bvh(9, 0.05, drop="Head"))
    (root / "broken.npy").write_bytes(b"no array")
    data = MotionFolder(root, frames=8)
    assert len(data) == 3
    skipped = data.skipped
    assert skipped.pop("broken.npy").startswith("not readable (")
    assert skipped == {
        "Mean.npy": "float32 of shape (263,); motion is (T, 263) or (T, 22, 3)",
        "nan.npy": "numbers that are not finite",
        "short.npy": "3 frames, fewer than a crop",
        "millimetres.npy": "no frame, or features outside -10 to 10: not metres?",
        "one.npy": "fewer than 2 frames",
        "other.bvh": "none of the skeletons cmu, mixamo, chest",
    }


def test_a_bad_file_met_while_training_is_replaced(root):
    np.save(root / "a.npy", np.full((30, 263), np.nan, np.float32))
    data = MotionFolder(root, frames=8, train=True)
    assert data.ids[0] == "a.npy"
    assert data[0].isfinite().all()
    assert data.skipped == {"a.npy": "numbers that are not finite"}


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="expected 1 frame or more; got frames=0"):
        MotionFolder(tmp_path, frames=0)
    with pytest.raises(DataError) as error:
        MotionFolder(tmp_path)
    assert str(error.value) == (
        f"MotionFolder: expected at least one usable motion in '{tmp_path}'; got 0 files, none of "
        "them usable."
    )
    with pytest.raises(DataError, match=r"train\.txt'; got no such file"):
        MotionFolder(tmp_path, listing="train.txt")


def test_reading_equals_the_features_of_its_joints(tmp_path):
    joints = torch.from_numpy(WALKS.joints(0))
    np.save(tmp_path / "walk.npy", joints.numpy())
    from tokenizers_vq.functional.motion import faced

    expected = features_from_joints(faced(joints)).float()
    assert torch.equal(read_motion(tmp_path / "walk.npy"), expected)
