import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.radix import (
    check_radix,
    pack_bits,
    pack_digits,
    reverse_bits,
    unpack_bits,
    unpack_digits,
)


def test_the_first_digit_changes_fastest():
    digits = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 4, 3]])
    assert pack_digits(digits, (3, 5, 4)).tolist() == [1, 3, 15, 59]


@pytest.mark.parametrize("sizes", [(8, 5, 5, 5), (2,), (1000, 1, 7)])
def test_unpacking_is_the_inverse(sizes):
    index = torch.arange(check_radix(sizes, "test"))
    digits = unpack_digits(index, sizes)
    assert torch.equal(pack_digits(digits, sizes), index)
    assert bool((digits < torch.tensor(sizes)).all())


def test_the_largest_product_that_fits_is_exact():
    sizes = (2,) * 61 + (3,)
    digits = torch.tensor([s - 1 for s in sizes])
    assert int(pack_digits(digits, sizes)) == 3 * 2**61 - 1
    assert torch.equal(unpack_digits(pack_digits(digits, sizes), sizes), digits)


@pytest.mark.parametrize("function", [pack_digits, unpack_digits])
def test_overflow_is_refused(function):
    with pytest.raises(ConfigError) as error:
        function(torch.zeros(63, dtype=torch.int64), (2,) * 63)
    assert str(error.value) == (
        f"{function.__name__}: expected a product of sizes below 2**63; got 2**63.0. "
        "Keep one index per codebook instead of packing them."
    )


def test_bits_are_the_radix_two_case_and_the_golden_signs():
    signs = torch.tensor([c == "+" for c in "+--+++-+---+-+++-+"])
    assert int(pack_bits(signs)) == 190649
    low, high = signs[:6], signs[6:]
    assert (int(pack_bits(low)), int(pack_bits(high))) == (57, 2978)
    assert (int(pack_bits(signs[:9])), int(pack_bits(signs[9:]))) == (185, 372)
    assert int(pack_digits(signs.long(), (2,) * 18)) == 190649
    assert torch.equal(unpack_bits(torch.tensor(190649), 18).bool(), signs)


def test_golden_indices_with_the_highest_bit_first():
    ours = torch.tensor([190649])
    assert int(reverse_bits(ours, 18)) == 160861
    assert int(reverse_bits(torch.tensor(5), 4)) == 10
    assert int(reverse_bits(torch.tensor(0b1101), 4)) == 11


@pytest.mark.parametrize("count", [1, 7, 62])
def test_reversing_bits_twice_changes_nothing(count):
    index = torch.randint(2**count, (200,))
    there = reverse_bits(index, count)
    assert torch.equal(reverse_bits(there, count), index)
    assert f"{int(there[0]):0{count}b}" == f"{int(index[0]):0{count}b}"[::-1]
