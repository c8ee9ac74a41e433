import pytest
from reference.causality import VIDEO, check_causality, on_meta, pair_of

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.registry import build

SIZES = {"dv4x8x8": (4, 8, 8), "dv8x8x8": (8, 8, 8), "dv8x16x16": (8, 16, 16)}


def test_the_past_does_not_know_the_future():
    check_causality(*pair_of("tiny_cosmos_video"))


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_compose(name):
    encoder, decoder = on_meta(f"cosmos_video_{name}")
    assert encoder.stride == decoder.stride == SIZES[name]
    assert encoder.grid((17, 256, 256))[0] == 1 + 16 // SIZES[name][0]


@pytest.mark.parametrize("stride", [[2, 2], [4, 2], [3, 4], [2, 16], [8, 8]])
def test_strides_that_no_schedule_makes_are_refused(stride):
    options = {"name": "cosmos_video", "patch": 2, "channel_mult": [1, 2, 2], "stride": stride}
    if stride == [2, 2]:  # cells alone
        assert build("encoder", {**options, "width": 8}, dim=4, signal=VIDEO).stride == (2, 2, 2)
        return
    with pytest.raises(ConfigError) as error:
        build("encoder", options, dim=4, signal=VIDEO)
    assert str(error.value) == (
        "cosmos_video: expected strides that 3 levels make of cells of 2: powers of two, space as "
        f"often as time or once more; got time {stride[0]}, space {stride[1]}. Correct the "
        "backbone config."
    )
