"""Published sizes, the blur by hand, and the shapes of its logits."""

import pytest
import torch

from tokenizers_vq.discriminators.blur_patchgan import Blur, BlurPatchGAN
from tokenizers_vq.errors import ConfigError, ShapeError


@pytest.mark.parametrize(("stages", "count"), [(4, 7_431_297), (3, 1_909_889)])
def test_the_published_parameter_counts(stages, count):
    assert sum(p.numel() for p in BlurPatchGAN(stages=stages).parameters()) == count


def test_the_blur_by_hand():
    row = torch.tensor([0.0, 0.0, 8.0, 0.0, 0.0, 0.0])
    out = Blur()(row.expand(1, 1, 6, 6))
    # taps 1 3 3 1 of 8 at samples 2i - 1 .. 2i + 2; the rows next to the border miss one tap of 8
    assert out[0, 0, 1].tolist() == pytest.approx([1.0, 3.0, 0.0])
    assert out[0, 0, 0].tolist() == pytest.approx([7 / 8, 21 / 8, 0.0])


@pytest.mark.parametrize(("size", "half"), [(6, 3), (7, 4)])
def test_the_blur_gives_half_of_the_samples_rounded_up(size, half):
    assert Blur()(torch.zeros(1, 2, size, size)).shape == (1, 2, half, half)


def test_logits_lie_on_a_fixed_map_or_on_all_positions():
    x = torch.rand(2, 3, 96, 80)
    assert BlurPatchGAN(width=32, stages=2)(x).shape == (2, 1, 16, 16)
    assert BlurPatchGAN(width=32, stages=2, map_size=None)(x).shape == (2, 1, 24, 20)


def test_what_it_cannot_judge_is_refused():
    with pytest.raises(ShapeError) as error:
        BlurPatchGAN(width=32, stages=3)(torch.rand(1, 3, 4, 8))
    assert str(error.value) == (
        "BlurPatchGAN: expected images of at least 8 x 8 pixels; got 4 x 8. "
        "Use larger images, or fewer stages."
    )
    with pytest.raises(ConfigError) as error:
        BlurPatchGAN(width=30)
    assert str(error.value) == (
        "BlurPatchGAN: expected at least 1 stage, a width that is a multiple of 32 groups and "
        "map_size from 1; got stages 4, width 30, map_size 16. Correct the discriminator config."
    )
