"""The ``.tok`` file: round trips, damage at every byte, bytes that never change."""

import math
import zlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import tok_decoder

from tokenizers_vq.bitstream import from_bytes, info, read_tok, to_bytes, write_tok
from tokenizers_vq.errors import BitstreamError, ConfigError, ShapeError
from tokenizers_vq.types import Codes

ALPHABETS = [1, 2, 3, 15, 256, 64000, 2**18]
DIGITS = [(1,), (2,), (3,), (15,), (256,), (300,), (8, 5, 5)]


def made(shape, sizes, signal=(), model="", seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand((*shape, len(sizes)), generator=generator, dtype=torch.float64)
    indices = (unit * torch.tensor(sizes)).long()
    return Codes(indices, signal, tuple(sizes), model)


def assert_same(found, codes):
    assert found.indices.dtype == torch.int64
    assert torch.equal(found.indices, codes.indices)
    assert (found.shape, found.codebook_sizes, found.model) == (
        codes.shape,
        codes.codebook_sizes,
        codes.model,
    )


def said(data, prior=None):
    with pytest.raises(BitstreamError) as error:
        from_bytes(data, prior)
    return str(error.value)


def codes_of(indices, prior, signal=(50, 40)):
    return Codes(torch.from_numpy(indices), signal, prior.codebook_sizes, prior.model)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=5),
    st.lists(st.sampled_from(ALPHABETS), min_size=1, max_size=4),
    st.lists(st.integers(0, 2**40), max_size=4),
    st.text(max_size=8),
    st.integers(0, 2**31),
)
def test_fixed_length_files_come_back(shape, sizes, signal, model, seed):
    codes = made(shape, sizes, tuple(signal), model, seed)
    data = to_bytes(codes)
    assert_same(from_bytes(data), codes)
    again = tok_decoder.decode(data)
    assert again["indices"] == codes.indices.flatten().tolist()
    assert again["model"] == model
    about = info(data)
    assert (
        about["payload_bytes"] * 8
        < codes.indices[..., 0].numel() * sum(math.log2(size) for size in sizes) + 8.001
    )


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_entropy_coded_files_come_back(make_prior, likely, rank, batch):
    prior = make_prior([DIGITS[i] for i in (1, 3, 6, 5, 0)], rank)
    for grid in ([3, 4, 2, 2][:rank], [0, 2, 1, 1][:rank], [1] * rank):
        codes = codes_of(likely(prior, (batch, *grid, 5)), prior)
        data = to_bytes(codes, prior)
        assert info(data)["coding"] == "entropy"
        assert_same(from_bytes(data, prior), codes)
        again = tok_decoder.decode(data, prior.to_bytes())
        assert again["indices"] == codes.indices.flatten().tolist()


@pytest.mark.parametrize("digits", DIGITS, ids=str)
def test_every_alphabet_comes_back_under_a_prior(make_prior, likely, digits):
    prior = make_prior([digits], 2)
    codes = codes_of(likely(prior, (2, 5, 6, 1)), prior)
    data = to_bytes(codes, prior)
    assert info(data)["coding"] == "entropy"
    assert_same(from_bytes(data, prior), codes)
    assert_same(from_bytes(data, prior), codes)  # the prior keeps no state of a file
    assert tok_decoder.decode(data, prior.to_bytes())["indices"] == codes.indices.flatten().tolist()


def test_unlikely_indices_come_back_too(make_prior):
    prior = make_prior([(15,), (300,), (8, 5, 5)], 2)
    indices = made((2, 5, 6), prior.codebook_sizes).indices.numpy()
    stream = prior.encode(indices)
    assert (prior.decode(stream, indices.shape) == indices).all()


def test_an_image_carries_20_bytes_besides_its_payload(make_prior):
    prior = make_prior([(15,)] * 4, 2)
    codes = made((1, 16, 16), (15,) * 4, (256, 256), prior.model)
    assert info(to_bytes(codes, prior))["overhead_bytes"] == 20


def test_a_prior_that_does_not_fit_costs_no_more_than_fixed_length(make_prior):
    prior = make_prior([(256,)], 1)
    codes = made((1, 200), (256,), (200,), prior.model)
    data = to_bytes(codes, prior)
    assert info(data)["coding"] == "fixed"
    assert info(data)["payload_bytes"] == 200
    assert_same(from_bytes(data, prior), codes)


def test_another_model_name_than_the_priors_is_kept(make_prior):
    prior = make_prior([(15,)], 1)
    codes = made((1, 30), (15,), (30,), "other@2")
    data = to_bytes(codes, prior)
    assert_same(from_bytes(data, prior), codes)
    assert info(data)["model"] == "other@2"


def test_info_says_what_the_file_holds():
    codes = made((2, 3, 4), (15, 15, 64000), (48, 64), "m@1")
    data = to_bytes(codes)
    assert info(data) == {
        "version": 1,
        "coding": "fixed",
        "prior": None,
        "batch": 2,
        "grid": (3, 4),
        "shape": (48, 64),
        "codebook_sizes": (15, 15, 64000),
        "model": "m@1",
        "payload_bytes": 72,
        "overhead_bytes": len(data) - 72,
        "total_bytes": len(data),
    }


def test_files_are_written_whole_and_nothing_else_is_left(tmp_path):
    codes = made((1, 4, 4), (64000,), (64, 64), "m@1")
    path = tmp_path / "cat.tok"
    path.write_bytes(b"old")
    assert codes.save(path) == write_tok(path, codes) == path.stat().st_size
    assert_same(read_tok(path), codes)
    assert_same(Codes.load(path), codes)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.tok"]


@pytest.mark.parametrize("entropy", [False, True])
def test_every_truncation_and_every_flipped_bit_is_refused(make_prior, likely, entropy):
    prior = make_prior([(15,), (3,), (300,)], 2)
    codes = codes_of(likely(prior, (1, 3, 4, 3)), prior)
    data = to_bytes(codes, prior if entropy else None)
    assert info(data)["coding"] == ("entropy" if entropy else "fixed")
    assert_same(from_bytes(data, prior), codes)
    for end in range(len(data)):
        assert "expected" in said(data[:end], prior)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            words = said(bytes(damaged), prior)
            if at > 3:
                assert words.endswith("The file is damaged or incomplete; copy it again.")
    for extra in (b"\0", b"\1", b"\0" * 8, data):
        assert "The file is damaged or incomplete" in said(data + extra, prior)


def test_damage_gets_one_clear_sentence(make_prior):
    prior, other = make_prior([(15,)], 1), make_prior([(15,)], 1, seed=2)
    codes = made((1, 30), (15,), (30,), prior.model)
    codes.indices.zero_()
    data = to_bytes(codes, prior)
    assert info(data)["coding"] == "entropy"
    assert said(b"tok") == (
        "from_bytes: expected at least 10 bytes; got 3. The file is cut short; copy it again."
    )
    assert said(b"\x89PNG\r\n\x1a\n1234") == (
        "from_bytes: expected a file that starts with 746f6b ('tok'); got 89504e. "
        "This is not a .tok file."
    )
    assert said(data[:3] + b"\2" + data[4:]) == (
        "from_bytes: expected .tok version 1; got version 2. "
        "Update tokenizers_vq, or encode the signal again."
    )
    stored, found = data[-4:], zlib.crc32(data[:-5]).to_bytes(4, "little")
    assert said(data[:-5] + stored) == (
        f"from_bytes: expected checksum {stored.hex()}; got {found.hex()}. "
        "The file is damaged or incomplete; copy it again."
    )
    for wrong, name in ((None, "none"), (other, other.sha256[:8])):
        assert said(data, wrong) == (
            f"from_bytes: expected prior {prior.sha256[:8]}; got {name}. "
            "Pass the prior the file was written with."
        )


def test_codes_that_cannot_be_written_are_refused(make_prior):
    prior = make_prior([(15,)], 2)
    codes = made((1, 2, 2), (15, 15), (32, 32))
    codes.indices[0, 0, 1, 1] = -1
    with pytest.raises(BitstreamError) as masked:
        to_bytes(codes)
    assert str(masked.value) == (
        "to_bytes: expected -1 in all codebooks of a position or in none; got some (a prefix of a "
        "residual head?). Write only what decode needs."
    )
    with pytest.raises(BitstreamError) as sizes:
        to_bytes(made((1, 2, 2), (16,)), prior)
    assert str(sizes.value) == (
        "to_bytes: expected codebooks (15,) as in the prior; got (16,). "
        "Fit a prior for this tokenizer."
    )
    with pytest.raises(BitstreamError) as rank:
        to_bytes(made((1, 4), (15,)), prior)
    assert str(rank.value) == (
        "to_bytes: expected a grid of rank 2 as in the prior; got rank 1. "
        "Fit a prior for this tokenizer."
    )
    with pytest.raises(BitstreamError) as kind:
        to_bytes(codes, "prior.safetensors")
    assert str(kind.value) == (
        "to_bytes: expected a CountPrior; got str. Load it with CountPrior.load."
    )
    with pytest.raises(ShapeError, match=r"index 15 in codebook 0 is outside 0\.\.14"):
        to_bytes(Codes(torch.full((1, 1), 15), (), (15,)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=24), st.integers(1, 3), st.booleans())
def test_missing_tokens_come_back_and_cost_their_runs(missing, count, tail):
    missing = torch.tensor(sorted(missing) if tail else missing, dtype=torch.bool)
    codes = made((1, len(missing)), (300,) * count)
    codes.indices[0, missing] = -1
    data = to_bytes(codes)
    assert_same(from_bytes(data), codes)
    whole = to_bytes(made((1, len(missing) - int(missing.sum())), (300,) * count))
    runs = 1 + int((missing[1:] != missing[:-1]).sum()) if len(missing) else 0
    runs += int(bool(len(missing)) and bool(missing[0]))
    assert len(data) == len(whole) + (1 + runs if missing.any() else 0)


def test_missing_tokens_come_back_under_a_prior(make_prior):
    prior = make_prior([(15,), (3,)], 1)
    codes = made((3, 40), (15, 3), (64, 64), prior.model)
    codes.indices[0, 5:] = codes.indices[2, 39:] = -1
    assert_same(from_bytes(to_bytes(codes, prior), prior), codes)


@pytest.mark.parametrize("lengths", [None, (5, 64, 1)])
@pytest.mark.parametrize("segments", [None, 1, 4])
def test_lengths_and_scales_come_back(lengths, segments):
    codes = made((3, 4), (15, 3), (64,), "a@b")
    scale = None if segments is None else torch.rand(3, segments)
    codes = replace(codes, scale=scale, lengths=lengths)
    found = from_bytes(to_bytes(codes))
    assert_same(found, codes)
    assert found.lengths == lengths
    assert (found.scale is None) == (scale is None)
    assert scale is None or torch.equal(found.scale, scale)


def sealed(*parts):
    body = b"tok\1" + b"".join(parts)
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (sealed(b"\x80\x00"), "flags 128"),
        (sealed(b"\x20\x11\x01\x05\x01\x0f\x01\x06"), "lengths outside a signal of (5,)"),
        (sealed(b"\x40\x00\x01\x0f\x01\x00"), "scales of no segments"),
        (sealed(b"\x10\x01\x05\x01\x0f\x01\x02\x03\x03"), "gaps in 6 positions of 5"),
        (sealed(b"\x01\x00"), "flags 1"),
        (sealed(b"\x00\x01"), "one that ends early"),
        (sealed(b"\x00\x01", b"\xff" * 10), "a number above 2**63"),
        (sealed(b"\x00\x00\x01\x00\x01"), "1 codebooks of size 0"),
        (sealed(b"\x04\x00\x01\x0f\x01\x01\xff"), "a model name that is not UTF-8"),
        (sealed(b"\x00\x00\x01\x0f\x81\x80\x04"), "65537 codebooks of size 15"),
        (sealed(b"\x00\x00\x00"), "no codebooks"),
        (sealed(b"\x00\x00\x01\x0f\x00"), "no codebooks"),
        (sealed(b"\x00\x01\x81\x80\x10\x01\x0f\x01"), "262145 indices in 0 bytes"),
        # a grid of 2**14 x 2**13 and one codebook of one code, which needs no payload
        (sealed(b"\x00\x02\x80\x80\x01\x80\x40\x01\x01\x01"), "134217728 indices in 0 bytes"),
        (sealed(b"\x00\x02\x00", b"\x80" * 8, b"\x40\x01\x0f\x01"), f"{2**62} indices in 0 bytes"),
        (sealed(b"\x00\x10", b"\x80" * 5, b"\x40\x01\x0f\x01"), f"an axis of {2**41} samples"),
    ],
)
def test_a_header_with_a_right_checksum_and_wrong_content_is_refused(data, what):
    assert said(data) == (
        f"from_bytes: expected a header of version 1; got {what}. "
        "The file was not written by this library; encode the signal again."
    )


def test_a_payload_of_another_length_is_refused():
    assert said(sealed(b"\x00\x01\x80\x80\x10\x01\x0f\x01")) == (
        # 64 blocks of ceil(4096 * log2(15) / 8) = 2,001 bytes
        "unpack: expected 128064 bytes for 262144 symbols; got 0. "
        "The file is damaged; copy it again."
    )


def test_a_stream_of_zeros_may_claim_little(make_prior):
    """Zeros at the end of a stream are dropped, so any number of first symbols takes no bytes."""
    prior = make_prior([(15,)], 1)
    zeros = codes_of(torch.zeros((1, 300, 1), dtype=torch.int64).numpy(), prior, (300,))
    data = to_bytes(zeros, prior)
    assert info(data)["payload_bytes"] == 0
    assert_same(from_bytes(data, prior), zeros)
    claim = sealed(b"\x09\x01", bytes.fromhex(prior.sha256[:8]), b"\x81\x80\x10")
    assert said(claim, prior).startswith(
        "from_bytes: expected a header of version 1; got 262145 indices in 0 bytes. "
    )


def test_more_than_a_reader_would_take_is_not_written(make_prior):
    prior, shape = make_prior([(15,)], 1), (1, 2**18 + 1, 1)
    zeros = codes_of(torch.zeros(shape, dtype=torch.int64).numpy(), prior, (2**18,))
    data = to_bytes(zeros, prior)
    assert info(data)["coding"] == "fixed"
    assert_same(from_bytes(data, prior), zeros)
    with pytest.raises(BitstreamError) as error:
        to_bytes(Codes(zeros.indices, (), (1,)))
    assert str(error.value) == (
        "to_bytes: expected at most 262144 indices in 0 bytes; got 262145. Write several files."
    )
    with pytest.raises(BitstreamError) as error:
        to_bytes(Codes(zeros.indices[..., :0], (), ()))
    assert str(error.value) == (
        "to_bytes: expected at least 1 codebook; got 0. Give codebook_sizes."
    )
    with pytest.raises(BitstreamError) as error:
        to_bytes(Codes(zeros.indices, (2**41,), (15,)))
    assert str(error.value) == (
        "to_bytes: expected at most 1099511627776 samples per axis; got 2199023255552. "
        "Write several files."
    )


def test_too_many_axes_are_refused():
    with pytest.raises(BitstreamError) as error:
        to_bytes(made((1,), (2,), (1,) * 16))
    assert str(error.value) == (
        "to_bytes: expected at most 15 axes, 65536 codebooks and 16777216 indices; "
        "got 16, 1 and 1. Write several files."
    )


def test_read_tok_names_a_missing_file(tmp_path):
    with pytest.raises(BitstreamError) as error:
        read_tok(tmp_path / "no.tok")
    assert str(error.value) == (
        f"read_tok: expected a .tok file at {tmp_path / 'no.tok'}; "
        "got No such file or directory. Check the path."
    )


GOLDEN_FIXED = (
    "746f6b01042203043228040f010301ac02012801066d6164654031391b3a8afae667f1f79a4bb568"
    "1035186eb9a796c4668f3a85caf211105796147c"
)
GOLDEN_ENTROPY = (
    "746f6b0109223dbe2e8c030432281be55d996f245c6cda922e55086d62ef64af42981b14db6a1994d1e541"
)
GOLDEN_DIGEST = "3dbe2e8ceab637b821ea6ddcf039f191f8eead1c06a045a2b856fbab0011ba52"


def test_golden_files_never_change(make_prior, likely):
    prior = make_prior([(15,), (3,), (300,), (8, 5)], 2)
    codes = codes_of(likely(prior, (1, 3, 4, 4)), prior)
    assert prior.sha256 == GOLDEN_DIGEST
    assert info(bytes.fromhex(GOLDEN_ENTROPY))["coding"] == "entropy"
    assert to_bytes(codes).hex() == GOLDEN_FIXED
    assert to_bytes(codes, prior).hex() == GOLDEN_ENTROPY
    assert_same(from_bytes(bytes.fromhex(GOLDEN_FIXED)), codes)
    assert_same(from_bytes(bytes.fromhex(GOLDEN_ENTROPY), prior), codes)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_first_codebooks_are_coded_by_the_first_tables_of_the_prior(make_prior, likely, count):
    prior = make_prior([(15,), (3, 100), (300,)], 1)
    sizes = prior.codebook_sizes[:count]
    indices = torch.from_numpy(likely(prior.leading(count), (1, 40, count)))
    codes = Codes(indices, (64,), sizes, prior.model)
    data = to_bytes(codes, prior)
    assert_same(from_bytes(data, prior), codes)
    assert info(data)["coding"] == "entropy"
    assert len(data) < len(to_bytes(codes))
    with pytest.raises(BitstreamError, match="expected prior"):
        from_bytes(data, make_prior([(15,), (3, 100), (300,)], 1, seed=2))


def test_a_prior_has_no_other_codebooks(make_prior):
    prior = make_prior([(15,), (3,)], 1)
    assert prior.leading(2) is prior
    assert prior.leading(1).codebook_sizes == (15,)
    with pytest.raises(ConfigError) as error:
        prior.leading(3)
    assert str(error.value) == (
        "CountPrior.leading: expected a count of 1..2; got 3. A prior has no tables of other "
        "codebooks."
    )
