from types import SimpleNamespace

import pytest
import torch
from reference.patch_mean import PatchMean, Pictures

from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.robustness.stability import CHANGES, index_stability, jpeg, noise


def pictures(n: int = 3) -> torch.Tensor:
    data = Pictures(n)
    return to_uint8(torch.stack([data[k] for k in range(n)]))


@pytest.fixture
def codec():
    one = PatchMean()
    one.stride = (8, 8)
    one.encoder = SimpleNamespace(size=None, latent_axes=2)
    return one


def test_changes_are_what_they_say():
    image = pictures(1)[0]
    assert torch.equal(CHANGES["grey levels +1"](torch.zeros(3, 2, 2, dtype=torch.uint8)),
                       torch.ones(3, 2, 2, dtype=torch.uint8))  # fmt: skip
    sigma = (noise(torch.full((3, 64, 64), 128, dtype=torch.uint8), 5).float() - 128).std()
    assert float(sigma) == pytest.approx(5, rel=0.05)
    errors = [float((jpeg(image, q).float() - image).square().mean()) for q in (95, 75, 50)]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_a_shift_by_a_position_keeps_the_tokens_of_a_patch_codec(codec):
    found = index_stability(codec, pictures(), resamples=20)
    assert found["shift one position"]["indices"] == 1.0
    assert found["shift half a position"]["indices"] < found["shift 1 px"]["indices"] < 1
    assert found["JPEG q50"]["indices"] <= found["JPEG q95"]["indices"]
    low, high = found["noise 5"]["interval"]
    assert low <= found["noise 5"]["indices"] <= high
    assert found["noise 5"]["n"] == 3


def test_tokenizers_of_one_size_are_not_shifted(codec):
    codec.encoder.size = (64, 64)
    assert set(index_stability(codec, pictures(2), resamples=0)) == set(CHANGES)


def test_shares_are_of_indices_and_of_whole_positions(codec, monkeypatch):
    from tokenizers_vq.robustness import stability

    same = torch.ones(2, 2, 2, 4, dtype=torch.bool)
    same[0, 0, 0, 0] = False  # one of 16 indices, one of 4 positions of the first picture
    one = stability._share(same, 0, 0)
    assert one["indices"] == pytest.approx((15 / 16 + 1) / 2)
    assert one["positions"] == pytest.approx((3 / 4 + 1) / 2)
