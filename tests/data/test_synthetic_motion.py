import pytest
import torch

from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.motion import FEET, bone_lengths
from tokenizers_vq.metrics.joints import foot_skate


def test_motions_are_deterministic_different_and_in_range():
    data, again = (SyntheticMotion(n=4, frames=20, seed=1) for _ in range(2))
    items = list(data)
    assert all(x.shape == (263, 20) and x.dtype == torch.float32 for x in items)
    assert all(x.isfinite().all() and x.abs().max() < 5 for x in items)
    assert all(torch.equal(x, again[5, i]) for i, x in enumerate(items))
    assert len({x.numpy().tobytes() for x in items}) == 4
    assert data.sha256() == again.sha256() != SyntheticMotion(n=4, frames=20).sha256()


@pytest.mark.parametrize("index", range(4))
def test_bones_keep_their_length_and_feet_the_ground(index):
    joints = torch.from_numpy(SyntheticMotion(n=4, frames=60).joints(index))
    each = torch.stack([bone_lengths(frame[None]) for frame in joints])
    assert (each - each[0]).abs().max() < 1e-12
    assert joints[:, list(FEET), 1].amin(1).abs().max() < 1e-12
    assert (joints[..., 1] > -1e-9).all()
    assert foot_skate(joints[None], feet=FEET, height=1e-6).item() < 0.02
    assert (joints[-1, 0] - joints[0, 0]).norm() > 0.2  # it gets somewhere


def test_an_empty_set_is_an_error():
    with pytest.raises(ConfigError) as error:
        SyntheticMotion(frames=0)
    assert str(error.value) == (
        "SyntheticMotion: expected n and frames of 1 or more; got n=256, frames=0."
    )
