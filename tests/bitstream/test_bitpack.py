"""Mixed-radix packing: exact, and no longer than log2 of the product."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizers_vq.bitstream.bitpack import BLOCK, pack, packed_size, unpack
from tokenizers_vq.errors import BitstreamError


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 15, 256, 64000, 2**18, 2**62]), min_size=1, max_size=5),
    st.integers(0, 300),
    st.integers(0, 2**32 - 1),
)
def test_symbols_come_back(sizes, count, seed):
    rng = np.random.default_rng(seed)
    radices = np.array(sizes, np.int64)[np.arange(count) % len(sizes)]
    symbols = (rng.random(count) * radices).astype(np.int64).clip(0, radices - 1)
    data = pack(symbols, sizes)
    assert len(data) == packed_size(count, sizes)
    assert unpack(data, count, sizes).tolist() == symbols.tolist()
    assert len(data) * 8 < sum(math.log2(int(r)) for r in radices) + 8.001


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_blocks_join(count):
    sizes = (3, 15, 7)
    symbols = np.arange(count) % 3
    assert unpack(pack(symbols, sizes), count, sizes).tolist() == symbols.tolist()


def test_a_64000_code_token_costs_under_16_bits():
    assert packed_size(1024, (64_000,)) * 8 / 1024 < 15.975


def test_the_largest_symbols_fill_the_block():
    assert pack(np.array([14, 2]), (15, 3)) == bytes([44])
    assert unpack(bytes([44]), 2, (15, 3)).tolist() == [14, 2]


def test_numbers_no_symbols_make_are_refused():
    with pytest.raises(BitstreamError, match="below the product of its codebook sizes"):
        unpack(bytes([45]), 2, (15, 3))
    with pytest.raises(BitstreamError, match="expected 1 bytes for 2 symbols; got 2"):
        unpack(bytes([1, 0]), 2, (15, 3))
