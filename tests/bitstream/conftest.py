"""Priors made of integers alone, the same on every machine."""

import numpy as np
import pytest

from tokenizers_vq.bitstream.contexts import offsets
from tokenizers_vq.bitstream.priors import CountPrior
from tokenizers_vq.bitstream.storage import PriorData
from tokenizers_vq.errors import BitstreamError


class Numbers:
    """A linear congruential generator: integers that no library version changes."""

    def __init__(self, seed):
        self.state = seed

    def draw(self, low, high, *shape):
        out = []
        for _ in range(int(np.prod(shape))):
            self.state = (self.state * 1103515245 + 12345) % 2**31
            out.append(low + (self.state >> 8) % (high - low))
        return np.array(out, np.int64).reshape(shape)


def made_prior(digits, rank, model="made@1", seed=1):
    numbers = Numbers(seed)
    sizes = tuple(int(np.prod(radices)) for radices in digits)
    data = PriorData(sizes, tuple(digits), rank, model)
    columns = len(data.columns)
    shape = (2, 1 + len(offsets(rank, columns)), columns, columns)
    data.weights = numbers.draw(-127, 128, *shape).astype(np.int8)
    for k, size in enumerate(data.columns):
        if size > 256:
            data.classes[k] = numbers.draw(0, 5, size).astype(np.uint8)
        symbols = 5 if size > 256 else size
        energy = np.unique(numbers.draw(-2000, 2000, k % 4)).tolist()
        mean = np.unique(numbers.draw(-60, 60, (k + 1) % 3)).tolist()
        data.order0.append(numbers.draw(10, 90, 1, symbols).astype(np.uint8))
        data.cuts.append((energy, mean))
        cells = (len(energy) + 1) * (len(mean) + 1)
        data.cells.append(numbers.draw(10, 90, cells, symbols).astype(np.uint8))
    return CountPrior(data)


def likely_indices(prior, shape, seed=3):
    """Indices a prior finds likely: what it reads from a stream of random bytes, then zeros."""
    count = int(np.prod(shape))
    for length in range(count, -1, -1):
        stream = bytes(Numbers(seed).draw(0, 256, length).tolist())
        try:
            return prior.decode(stream, shape)
        except BitstreamError:  # more bytes than the symbols take
            continue
    raise ValueError(shape)


@pytest.fixture
def likely():
    return likely_indices


@pytest.fixture
def make_prior():
    return made_prior
