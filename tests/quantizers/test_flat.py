"""What heads share on flat rows: linear maps whose layout is chosen for speed."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizers_vq.quantizers.flat import CACHED, NARROW, linear

WIDTHS = [(32, 5), (5, 32), (8, CACHED + 1), (CACHED + 1, 8), (32, 32), (NARROW + 1, 100)]


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(7,), (1,), (0,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_a_layer_gives_what_torch_gives_and_its_gradients(
    widths: tuple[int, int], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*widths)
    x, g = rows(*shape, widths[0]).requires_grad_(), rows(*shape, widths[1])
    inputs = (x, layer.weight, layer.bias)
    out, expected = linear(layer, x), F.linear(*inputs)
    torch.testing.assert_close(out, expected)
    for found, right in zip(
        torch.autograd.grad(out, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True
    ):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("widths", [(5, 32), (8, CACHED + 1), (NARROW, 100)], ids=str)
def test_the_layout_of_codes_does_not_change_a_bit_on_the_way_back(widths: tuple[int, int]) -> None:
    layer = nn.Linear(*widths)
    x = rows(501, widths[0])  # forward and decode may lay out codes differently
    assert torch.equal(linear(layer, x), linear(layer, x.t().contiguous().t()))


def test_a_layer_of_half_precision_is_applied_in_float32() -> None:
    layer = nn.Linear(5, 32).bfloat16()
    x = rows(7, 5)
    assert torch.equal(linear(layer, x), linear(layer.float(), x))
    assert linear(None, x) is x
