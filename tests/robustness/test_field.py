import torch
from reference.patch_mean import PatchMean
from torch import nn

from tokenizers_vq.robustness.field import receptive_fields
from tokenizers_vq.types import SignalSpec


class Mean(nn.Module):
    """The mean of patches of 8 px, channels last."""

    def frame(self, x):
        return x

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 8).permute(0, 2, 3, 1)


class Blurred(PatchMean):
    """A patch codec whose decoder spreads a patch by 4 px on each side."""

    signal = SignalSpec("image")
    encoder = Mean()
    spread = 0

    def decode(self, codes):
        x = super().decode(codes)
        width = 2 * self.spread + 1
        return nn.functional.avg_pool2d(x, width, 1, self.spread, count_include_pad=False)


def test_the_fields_of_a_patch_codec_are_its_patches():
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    found = receptive_fields(Blurred(), image)
    for side in ("decode", "encode"):
        assert found[side]["extent"] == [8, 8]
        assert found[side]["share"] == 64 / 64**2
        assert 7 <= found[side]["effective"] <= 9


def test_a_decoder_that_spreads_has_a_larger_field():
    codec = Blurred()
    codec.spread = 2
    found = receptive_fields(codec, torch.full((3, 64, 64), 100, dtype=torch.uint8))
    assert found["decode"]["extent"] == [12, 12]
    assert found["encode"]["extent"] == [8, 8]
    assert found["decode"]["effective"] < 12
