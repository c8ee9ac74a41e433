import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional.framing import crop, grid_shape, pad_to_stride, padded_shape


def first_line(error) -> str:
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize("stride", [1, 2, 7, 8, 16])
def test_lengths_are_the_smallest_that_hold_the_signal(stride):
    for length in range(1, 40):
        (positions,) = grid_shape((length,), (stride,))
        assert positions * stride >= length > (positions - 1) * stride
        assert padded_shape((length,), (stride,)) == (positions * stride,)


@pytest.mark.parametrize("shape", [(1,), (17,), (1, 1), (5, 33), (16, 16), (1, 3, 9)])
def test_crop_undoes_pad_exactly(shape):
    stride = (8, 16, 4)[: len(shape)]
    x = torch.randn(2, 3, *shape)
    padded = pad_to_stride(x, stride)
    assert padded.shape[2:] == padded_shape(shape, stride)
    assert torch.equal(crop(padded, shape), x)


def test_the_edge_is_repeated_at_the_end_of_every_axis():
    x = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[1, 2, 2], [3, 4, 4], [3, 4, 4]]]], dtype=torch.uint8)
    assert torch.equal(pad_to_stride(x, (3, 3)), expected)


def test_one_pixel_fills_a_whole_position():
    assert torch.equal(
        pad_to_stride(torch.full((1, 3, 1, 1), 0.5), (16, 16)), torch.full((1, 3, 16, 16), 0.5)
    )


def test_a_signal_of_whole_positions_is_not_copied():
    x = torch.randn(1, 1, 8)
    assert pad_to_stride(x, (4,)) is x


def test_gradient_of_the_padding_goes_to_the_edge():
    x = torch.zeros(1, 1, 3, requires_grad=True)
    pad_to_stride(x, (8,)).sum().backward()
    assert x.grad.flatten().tolist() == [1.0, 1.0, 6.0]


def test_wrong_shapes_are_named():
    with pytest.raises(ShapeError) as error:
        grid_shape((3, 4, 4), (8, 8))
    assert first_line(error) == (
        "grid_shape: expected 2 sample axes, one per stride; got shape (3, 4, 4). "
        "Leave batch and channels out."
    )
    with pytest.raises(ShapeError) as error:
        pad_to_stride(torch.zeros(1, 3, 0, 4), (8, 8))
    assert first_line(error) == (
        "grid_shape: expected at least 1 sample per axis; got (0, 4). Drop empty signals."
    )
    with pytest.raises(ShapeError) as error:
        pad_to_stride(torch.zeros(3, 4, 4), (8, 8))
    assert first_line(error) == (
        "pad_to_stride: expected a signal (B, C, 2 sample axes); got (3, 4, 4). "
        "Add the batch axis with x[None]."
    )
    with pytest.raises(ShapeError) as error:
        crop(torch.zeros(1, 3, 8, 8), (9, 8))
    assert first_line(error) == (
        "crop: expected a signal of at least (9, 8) samples; got (8, 8). "
        "Crop what decode returned to the shape that was encoded."
    )
