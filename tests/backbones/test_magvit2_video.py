import pytest
import torch
from reference.causality import VIDEO, check_causality, on_meta, pair_of

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build


def test_the_past_does_not_know_the_future():
    check_causality(*pair_of("tiny_magvit2_video"))


@torch.no_grad()
def test_norms_over_the_clip_tell_every_frame_of_the_future():
    encoder, decoder = pair_of("tiny_magvit2_video", norm="clip")
    x = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    other = x.clone()
    other[:, :, 5:] = 0
    assert not torch.equal(encoder(other)[:, 0], encoder(x)[:, 0])
    assert decoder(encoder(x)).shape == x.shape


def test_published_sizes_compose():
    encoder, decoder = on_meta("magvit2_video_ucf101")
    assert encoder.stride == decoder.stride == (4, 8, 8)
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (encoder, decoder)]
    assert [round(n, 1) for n in counts] == [144.9, 225.7]


def test_a_missing_pool_is_named():
    with pytest.raises(ConfigError) as error:
        build("encoder", {"name": "magvit2_video", "pools": [[1, 2, 2]]}, dim=4, signal=VIDEO)
    assert str(error.value) == (
        "magvit2_video: expected a pool of three numbers between any two levels; got [[1, 2, 2]] "
        "for 4 levels. Correct the backbone config."
    )
