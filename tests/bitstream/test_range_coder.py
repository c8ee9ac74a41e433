"""The range coder: exact, close to the ideal length, and short at the end."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizers_vq.bitstream.range_coder import Decoder, encode
from tokenizers_vq.bitstream.tables import cumulative, frequencies
from tokenizers_vq.errors import BitstreamError


def table(lengths):
    return cumulative(frequencies(np.array([lengths], np.uint8)))[0].tolist()


def slices(cumulative_table, symbols):
    return [
        (cumulative_table[s], cumulative_table[s + 1] - cumulative_table[s], 65536) for s in symbols
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=256), st.data())
def test_symbols_come_back(lengths, data):
    cuts = table(lengths)
    symbols = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=200))
    stream = encode(slices(cuts, symbols))
    decoder = Decoder(stream)
    assert [decoder.symbol(cuts) for _ in symbols] == symbols
    decoder.finish()
    ideal = sum(16 - math.log2(freq) for _, freq, _ in slices(cuts, symbols)) / 8
    assert len(stream) <= ideal * 1.001 + 3


@pytest.mark.parametrize("total", [1, 2, 3, 255, 65536, 65537, 2**18, 2**24])
def test_uniform_numbers_come_back_at_their_ideal_length(total):
    numbers = [*np.random.default_rng(0).integers(0, total, 300).tolist(), 0, total - 1]
    stream = encode((number, 1, total) for number in numbers)
    decoder = Decoder(stream)
    assert [decoder.uniform(total) for _ in numbers] == numbers
    assert len(stream) <= len(numbers) * math.log2(total) / 8 * 1.001 + 3


@pytest.mark.parametrize("symbol", [0, 1])
def test_carries_and_zero_runs_survive(symbol):
    cuts = [0, 1, 65535, 65536]
    for pattern in ([symbol * 2] * 500, [1] * 5000 + [symbol * 2], [2] * 40 + [0] * 40):
        decoder = Decoder(encode(slices(cuts, pattern)))
        assert [decoder.symbol(cuts) for _ in pattern] == pattern


def test_skewed_table_is_within_half_a_percent():
    cuts = table([1, 80, 90, 100])
    freq = np.diff(cuts) / 65536
    symbols = np.random.default_rng(1).choice(4, 20_000, p=freq).tolist()
    ideal = -np.log2(freq)[symbols].sum() / 8
    assert len(encode(slices(cuts, symbols))) <= ideal * 1.005 + 3


def test_nothing_is_no_bytes():
    assert encode([]) == b""
    Decoder(b"").finish()


def test_trailing_bytes_are_refused():
    decoder = Decoder(encode([(1, 1, 2)]) + b"\1" * 8)
    decoder.uniform(2)
    with pytest.raises(BitstreamError) as error:
        decoder.finish()
    assert str(error.value) == (
        "Decoder: expected 6 bytes at most; got 10. The file has trailing bytes; copy it again."
    )


def test_tables_sum_and_every_symbol_can_be_coded():
    rng = np.random.default_rng(2)
    for size in (1, 2, 3, 15, 128, 129, 256):
        for high in (1, 16, 100, 256):
            freq = frequencies(rng.integers(0, high, (20, size)).astype(np.uint8))
            assert freq.min() >= 1
            assert (freq.sum(1) == 65536).all()
    extreme = np.full((1, 256), 255, np.uint8)
    extreme[0, :128] = 0
    assert frequencies(extreme).min() >= 1
