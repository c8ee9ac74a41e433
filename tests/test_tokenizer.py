import dataclasses
import math

import numpy
import pytest
import torch

import tokenizers_vq
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (1, 1), (7, 64)])
def test_decode_gives_back_exactly_the_size_that_was_encoded(tiny_tokenizer, size):
    x = torch.rand(2, 3, *size) * 2 - 1
    codes = tiny_tokenizer.encode(x)
    grid = tuple(math.ceil(n / s) for n, s in zip(size, tiny_tokenizer.stride, strict=True))
    assert codes.indices.shape == (2, *grid, 1)
    assert codes.indices.dtype == torch.int64
    assert tiny_tokenizer.decode(codes).shape == x.shape


def test_decode_of_encode_is_forward_in_eval(tiny_tokenizer):
    x = torch.rand(1, 3, 40, 48) * 2 - 1
    with torch.no_grad():
        forward = tiny_tokenizer(x)
    codes = tiny_tokenizer.encode(x)
    assert torch.equal(codes.indices, forward.quantized.indices)
    assert torch.equal(tiny_tokenizer.decode(codes, raw=True), forward.x_hat)


def test_decode_clamps_unless_raw(tiny_tokenizer):
    torch.nn.init.constant_(tiny_tokenizer.decoder.last_layer, 10.0)
    codes = tiny_tokenizer.encode(torch.rand(1, 3, 32, 32))
    assert tiny_tokenizer.decode(codes).abs().max() <= 1
    assert tiny_tokenizer.decode(codes, raw=True).abs().max() > 1


def test_uint8_is_the_same_picture_as_its_float(tiny_tokenizer):
    picture = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    as_float = picture.float() / 127.5 - 1
    assert torch.equal(
        tiny_tokenizer.encode(picture).indices, tiny_tokenizer.encode(as_float).indices
    )


def test_bare_indices_decode_too(tiny_tokenizer):
    codes = tiny_tokenizer.encode(torch.rand(1, 3, 32, 32))
    assert torch.equal(tiny_tokenizer.decode(codes.indices), tiny_tokenizer.decode(codes))


def test_freezing_freezes_the_codebook(tiny_config):
    tiny_config["quantizer"] = {"name": "vq", "codebook_size": 16, "codebook_update": "ema"}
    tokenizer = Tokenizer.from_config(tiny_config).train()
    z = torch.randn(1, 40, tokenizer.quantizer.dim)
    before = tokenizer.quantizer.codebook.clone()
    indices = tokenizer.quantizer.encode(z)
    assert tokenizer.requires_grad_(False) is tokenizer
    tokenizer.quantizer.update(z, indices)
    assert torch.equal(tokenizer.quantizer.codebook, before)
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    tokenizer.requires_grad_(True).quantizer.update(z, indices)
    assert not torch.equal(tokenizer.quantizer.codebook, before)


@pytest.mark.parametrize("quantizer", ["fsq", "ecsq", "group_lfq"])
def test_bytes_round_trip(tiny_config, quantizer):
    # bit for bit, although the indices of encode and of a file may lie differently in memory
    tiny_config["quantizer"] = read_config("quantizer", quantizer)
    tiny_tokenizer = Tokenizer.from_config(tiny_config).eval()
    x = torch.rand(1, 3, 133, 141) * 2 - 1
    data = tiny_tokenizer.compress(x)
    assert isinstance(data, bytes)
    assert torch.equal(
        tiny_tokenizer.decompress(data), tiny_tokenizer.decode(tiny_tokenizer.encode(x))
    )


def test_codes_know_their_rate():
    codes = Codes(torch.zeros(1, 4, 8, 2, dtype=torch.int64), (32, 64), (16, 4))
    assert codes.bits == 32 * 6
    assert codes.bpp == 32 * 6 / 2048
    assert codes.vocab_size == 20
    assert codes.tokens.shape == (1, 64)
    assert codes.tokens[0, :4].tolist() == [0, 16, 0, 16]
    codes.indices[0, 1:] = -1  # three of four rows are missing
    assert codes.bits == 8 * 6
    assert codes.tokens[0, 14:18].tolist() == [0, 16, -1, -1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.zeros(3, 32, 32),
            "encode: expected shape (B, 3, H, W); got (3, 32, 32). "
            "Signals are tensors, channels first, with a batch axis (x[None] adds one).",
        ),
        (
            lambda: torch.zeros(1, 4, 32, 32),
            "encode: expected shape (B, 3, H, W); got (1, 4, 32, 32). "
            "Signals are tensors, channels first, with a batch axis (x[None] adds one).",
        ),
        (
            lambda: torch.full((1, 3, 32, 32), 255.0),
            "encode: expected values in [-1, 1]; got 255 to 255. "
            "Rescale, or pass uint8 for 0..255.",
        ),
        (
            lambda: torch.full((1, 3, 32, 32), float("nan")),
            "encode: expected values in [-1, 1]; got nan to nan. "
            "Rescale, or pass uint8 for 0..255.",
        ),
        (
            lambda: numpy.zeros((1, 3, 32, 32)),
            "encode: expected a tensor (B, 3, H, W); got numpy.ndarray. "
            "Signals are tensors, channels first, with a batch axis (x[None] adds one).",
        ),
        (
            lambda: torch.zeros(1, 3, 32, 32, dtype=torch.int64),
            "encode: expected a float or uint8 signal; got torch.int64.",
        ),
        (
            lambda: torch.zeros(1, 3, 0, 32),
            "encode: expected at least 1 sample per axis; got (1, 3, 0, 32).",
        ),
    ],
)
def test_a_wrong_signal_is_one_sentence(tiny_tokenizer, make, message):
    with pytest.raises(ShapeError) as error:
        tiny_tokenizer.encode(make())
    assert str(error.value) == message


def test_wrong_codes_are_one_sentence(tiny_tokenizer):
    size = tiny_tokenizer.quantizer.codebook_sizes[0]
    with pytest.raises(ShapeError) as error:
        tiny_tokenizer.decode(torch.full((1, 4, 4, 1), size))
    assert str(error.value) == f"decode: index {size} in codebook 0 is outside 0..{size - 1}."
    with pytest.raises(ShapeError) as error:
        tiny_tokenizer.decode(torch.zeros(1, 4, 4, 1))
    assert str(error.value) == "decode: expected int64 indices; got torch.float32. Call .long()."
    with pytest.raises(ShapeError) as error:
        tiny_tokenizer.decode(torch.zeros(4, 4, dtype=torch.int64))
    assert str(error.value) == (
        "decode: expected indices of shape (B, *grid, 1) with 2 grid axes; got (4, 4)."
    )


def test_a_prefix_is_for_residual_heads(tiny_tokenizer, tiny_config):
    codes = tiny_tokenizer.encode(torch.rand(1, 3, 32, 32))
    assert torch.equal(tiny_tokenizer.decode(codes, num_codebooks=1), tiny_tokenizer.decode(codes))
    with pytest.raises(ShapeError) as error:
        tiny_tokenizer.decode(codes, num_codebooks=2)
    assert str(error.value) == (
        "decode: expected num_codebooks of 1..1 and a residual or multi-scale quantizer; "
        "got 2 for FSQ."
    )
    groups = {"repeat": 2, "of": {"name": "lfq", "bits": 2}}
    tiny_config["quantizer"] = {"name": "grouped", "code_dim": 4, "groups": groups}
    grouped = Tokenizer.from_config(tiny_config).eval()
    with pytest.raises(ShapeError, match="got 1 for Grouped"):
        grouped.decode(grouped.encode(torch.rand(1, 3, 32, 32)), num_codebooks=1)
    stages = {"repeat": 3, "of": {"name": "vq", "codebook_size": 8}}
    tiny_config["quantizer"] = {"name": "residual", "stages": stages}
    residual = Tokenizer.from_config(tiny_config).eval()
    codes = residual.encode(torch.rand(1, 3, 32, 32))
    assert residual.decode(codes, num_codebooks=2).shape == (1, 3, 32, 32)
    assert torch.equal(residual.decode(codes, num_codebooks=3), residual.decode(codes))
    with pytest.raises(ShapeError, match="got 4 for Residual"):
        residual.decode(codes, num_codebooks=4)


VQ = {"name": "vq", "codebook_size": 8, "code_dim": 4}
STACK = {"name": "residual", "code_dim": 4, "stages": {"repeat": 3, "of": VQ}}


@pytest.mark.parametrize(
    "quantizer",
    [
        {"name": "qinco", "codebook_size": 8, "depth": 3, "code_dim": 4, "hidden": 4},
        {"name": "perturbed", "inner": STACK, "count": 2},
        {"name": "projected", "code_dim": 4, "inner": STACK},
        {"name": "multi_scale", "code_dim": 4, "scales": [1, 2, 4], "inner": VQ},
    ],
)
def test_prefixes_of_other_heads(quantizer, tiny_config):
    tiny_config["quantizer"] = quantizer
    tokenizer = Tokenizer.from_config(tiny_config).eval()
    codes = tokenizer.encode(torch.rand(1, 3, 32, 32))
    coarse, whole = (tokenizer.decode(codes, num_codebooks=count) for count in (1, 3))
    assert torch.equal(whole, tokenizer.decode(codes))
    assert not torch.equal(coarse, whole)
    with pytest.raises(ShapeError):
        tokenizer.decode(codes, num_codebooks=4)


def test_training_forgets_the_file(tiny_tokenizer):
    tiny_tokenizer.file_sha256 = "0" * 64
    assert tiny_tokenizer.eval().model_id.endswith("@00000000")
    assert tiny_tokenizer.train().model_id.endswith("@unsaved")


def test_codes_whose_shape_is_not_their_grid_are_refused(tiny_tokenizer):
    codes = tiny_tokenizer.encode(torch.rand(1, 3, 32, 32))
    with pytest.raises(ShapeError) as error:
        tiny_tokenizer.decode(dataclasses.replace(codes, shape=(64, 32)))
    assert str(error.value) == (
        "decode: expected a grid of (8, 4) for a signal of (64, 32); got (4, 4). "
        "Codes keep the shape that was encoded."
    )


def test_codes_of_a_stranger_are_refused_or_warned_about(tiny_tokenizer):
    codes = tiny_tokenizer.encode(torch.rand(1, 3, 32, 32))
    with pytest.raises(ShapeError, match="made by 'other@1'"):
        tiny_tokenizer.decode(Codes(codes.indices, codes.shape, (7,), "other@1"))
    with pytest.warns(UserWarning, match="these codes were made by 'other@1'"):
        tiny_tokenizer.decode(Codes(codes.indices, codes.shape, codes.codebook_sizes, "other@1"))


def test_a_config_with_a_part_missing_is_refused(tiny_config):
    del tiny_config["decoder"]
    with pytest.raises(ConfigError) as error:
        Tokenizer.from_config(tiny_config)
    assert str(error.value) == (
        "Tokenizer: expected a config with signal, dim, encoder, quantizer, decoder; "
        "decoder missing."
    )


def test_public_names_are_lazy_and_complete():
    for name in [*tokenizers_vq.__all__, "list"]:
        assert getattr(tokenizers_vq, name) is not None
    assert "list" not in tokenizers_vq.__all__  # `import *` must not hide the builtin
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = tokenizers_vq.nothing
