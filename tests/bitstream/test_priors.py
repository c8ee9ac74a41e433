"""Count priors: what fitting gains, that files of tables are exact, and what is refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from reference import tok_decoder

from tokenizers_vq.bitstream import CountPrior, from_bytes, info, to_bytes
from tokenizers_vq.bitstream.tables import rarity_classes
from tokenizers_vq.errors import BitstreamError, ConfigError, ShapeError
from tokenizers_vq.types import Codes


def textured(count, grid, columns, size=15, seed=0):
    """Items whose symbols have a smooth mean (first column) and a local scale (all the others)."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(count):
        field = rng.normal(size=grid)
        for axis in range(len(grid)):
            for _ in range(2):
                field = field + np.roll(field, 1, axis)
        scale = np.exp2(field / field.std())
        noise = rng.laplace(size=(*grid, columns)) * scale[..., None] * 0.7
        noise[..., 0] = 3 * field / field.std()
        middle = size // 2
        items.append(np.clip(np.round(noise) + middle, 0, size - 1).astype(np.int64))
    return items


def order0_bits(train, test, size):
    bits = 0.0
    for k in range(test[0].shape[-1]):
        counts = np.bincount(np.concatenate([t[..., k].ravel() for t in train]), minlength=size)
        p = (counts + 0.5) / (counts + 0.5).sum()
        bits -= sum(np.log2(p[t[..., k]]).sum() for t in test)
    return float(bits)


def as_codes(item, sizes, model=""):
    return Codes(torch.from_numpy(item)[None], (256, 256), tuple(sizes), model)


@pytest.mark.parametrize(("grid", "gain"), [((400,), 0.98), ((16, 16), 0.95), ((5, 9, 9), 0.93)])
def test_context_beats_order_0_on_items_it_never_saw(grid, gain):
    items = textured(24, grid, 6)
    prior = CountPrior.fit(items[:18], (15,) * 6)
    bits = sum(prior.bits(item) for item in items[18:])
    assert bits < gain * order0_bits(items[:18], items[18:], 15)


def test_actual_bytes_are_the_ideal_length_and_a_few():
    items = textured(12, (16, 16), 8)
    prior = CountPrior.fit(items[:10], (15,) * 8, model="m@1")
    for item in items[10:]:
        codes = as_codes(item, (15,) * 8, "m@1")
        data = to_bytes(codes, prior)
        assert info(data)["payload_bytes"] <= prior.bits(item) / 8 * 1.0005 + 2
        assert torch.equal(from_bytes(data, prior).indices, codes.indices)


def test_a_saved_prior_is_the_same_prior(tmp_path):
    items = [
        np.concatenate([item, (item[..., :1] * 37) % 400], axis=-1)
        for item in textured(6, (6, 5), 3)
    ]
    sizes = (15, 15, 15, 400)
    prior = CountPrior.fit(items, sizes, digits=[(15,), (3, 5), (15,), (400,)], model="m@1")
    path = tmp_path / "prior.safetensors"
    assert prior.save(path) == path.stat().st_size == len(prior.to_bytes())
    again = CountPrior.load(path)
    assert again.sha256 == prior.sha256
    assert (again.model, again.rank, again.codebook_sizes) == ("m@1", 2, sizes)
    codes = as_codes(items[0], sizes, "m@1")
    data = to_bytes(codes, prior)
    assert to_bytes(codes, again) == data
    assert torch.equal(from_bytes(data, again).indices, codes.indices)
    assert tok_decoder.decode(data, path.read_bytes())["indices"] == items[0].ravel().tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == ["prior.safetensors"]


def loads(path):
    try:
        return CountPrior.load(path).sha256
    except BitstreamError:
        return None


def test_a_damaged_prior_is_refused(tmp_path, make_prior):
    prior = make_prior([(15,), (300,)], 1)
    blob = prior.to_bytes()
    path = tmp_path / "prior.safetensors"
    for at, bit in itertools.product(range(0, len(blob), 5), range(0, 8, 3)):
        damaged = bytearray(blob)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        # a few bits of a zlib stream do not change what it holds; all others are refused
        assert loads(path) in (None, prior.sha256)
    for end in range(0, len(blob), 97):
        path.write_bytes(blob[:end])
        with pytest.raises(BitstreamError, match=r"^CountPrior.load: expected "):
            CountPrior.load(path)
    with pytest.raises(BitstreamError, match=r"expected a tokenizers_vq.prior.1 file at .*no.saf"):
        CountPrior.load(tmp_path / "no.safetensors")


@pytest.mark.parametrize("size", [64_000, 2**18])
def test_large_alphabets_have_small_tables_and_cost_less_than_fixed_length(tmp_path, size):
    rng = np.random.default_rng(0)
    favourites = rng.permutation(size)
    rank = np.minimum(np.exp2(rng.random((20, 12, 12, 1)) * 14), size - 1).astype(np.int64)
    items = list(favourites[rank])
    prior = CountPrior.fit(items[:18], (size,))
    assert prior.save(tmp_path / "prior.safetensors") < 20_000
    fixed = 144 * math.log2(size)
    unseen = np.setdiff1d(np.arange(size), np.concatenate(items[:18]).ravel())[:144]
    for item in (*items[18:], unseen.reshape(12, 12, 1)):
        data = to_bytes(as_codes(item, (size,)), prior)
        assert np.array_equal(from_bytes(data, prior).indices[0].numpy(), item)
    assert sum(prior.bits(item) for item in items[18:]) < 0.92 * 2 * fixed


def test_digits_see_what_one_large_index_hides():
    parts = textured(20, (12, 12), 4, size=8)
    items = [(part * (1, 8, 64, 512)).sum(-1, keepdims=True) for part in parts]
    whole = CountPrior.fit(items[:16], (4096,))
    split = CountPrior.fit(items[:16], (4096,), digits=[(8, 8, 8, 8)])
    bits = [sum(p.bits(item) for item in items[16:]) for p in (whole, split)]
    assert bits[1] < 0.96 * bits[0]
    data = to_bytes(as_codes(items[17], (4096,)), split)
    assert np.array_equal(from_bytes(data, split).indices[0].numpy(), items[17])


def test_classes_count_without_the_item_itself():
    items = [np.array([3, 3, 5]), np.array([5, 7])]
    classes, left_out = rarity_classes(items, 9)
    # counts: 3 twice, 5 twice, 7 once; classes are the counts 0, 1, 2
    assert classes.tolist() == [0, 0, 0, 2, 0, 2, 0, 1, 0]
    assert [part.tolist() for part in left_out] == [[0, 0, 1], [1, 0]]


@pytest.mark.parametrize("columns", [1, 65, 257])
def test_any_number_of_columns_comes_back(columns):
    items = textured(3, (3, 4), columns, size=4)
    prior = CountPrior.fit(items, (4,) * columns)
    data = to_bytes(as_codes(items[0], (4,) * columns), prior)
    assert info(data)["coding"] == "entropy"
    assert np.array_equal(from_bytes(data, prior).indices[0].numpy(), items[0])


@pytest.mark.parametrize("grid", [(), (1,), (1, 1), (0, 3)])
def test_tiny_and_empty_items_can_be_fitted(grid):
    items = [np.zeros((*grid, 3), np.int64)] * 2
    prior = CountPrior.fit(items, (1, 2, 300))
    item = np.broadcast_to(np.array([0, 1, 299]), (*grid, 3)).copy()
    codes = Codes(torch.from_numpy(item)[None], (), (1, 2, 300))
    assert torch.equal(from_bytes(to_bytes(codes, prior), prior).indices, codes.indices)


def test_what_cannot_be_fitted_is_said():
    item = np.zeros((2, 2, 1), np.int64)
    with pytest.raises(ConfigError) as none:
        CountPrior.fit([], (4,))
    assert str(none.value) == (
        "CountPrior.fit: expected at least one item; got none. Pass indices."
    )
    with pytest.raises(ConfigError) as codebooks:
        CountPrior.fit([item], ())
    assert str(codebooks.value) == (
        "CountPrior.fit: expected at least one codebook; got none. Pass its size."
    )
    with pytest.raises(ConfigError) as digits:
        CountPrior.fit([item], (4,), digits=[(2, 3)])
    assert str(digits.value) == (
        "CountPrior.fit: expected digits that multiply to (4,); got (6,). "
        "Pass one tuple of radices per codebook."
    )
    with pytest.raises(ConfigError) as size:
        CountPrior.fit([item], (2**25,))
    assert str(size.value) == (
        "CountPrior.fit: expected alphabets of 1 to 16777216 symbols; got 33554432. "
        "Split the codebook with digits=."
    )
    with pytest.raises(ShapeError) as kind:
        CountPrior.fit([item, item[0]], (4,))
    assert str(kind.value) == (
        "CountPrior.fit: expected integer items of rank 3; got int64 of shape (2, 1). "
        "Fit one prior per grid rank."
    )
    with pytest.raises(ShapeError) as masked:
        CountPrior.fit([item - 1], (4,))
    assert str(masked.value) == (
        "CountPrior.fit: expected indices of at least 0; got -1 (a masked position). "
        "Leave masked items out."
    )


def test_the_file_is_the_same_bytes_every_time(make_prior):
    blob = make_prior([(5,), (7,)], 2).to_bytes()
    assert make_prior([(5,), (7,)], 2).to_bytes() == blob
    # safetensors stores metadata in random order, so there must be one key only
    assert blob.count(b'"__metadata__":{"prior":') == 1
