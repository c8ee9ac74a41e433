"""Imported DAC, SNAC and BigCodec give what functions written from the formulas give."""

import re

import pytest
import torch
from reference import dac
from torch.nn import functional as F

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published import from_published
from tokenizers_vq.published.dac import configure as configure_dac
from tokenizers_vq.published.snac import configure as configure_snac

LENGTHS = (1, 9, 10, 11, 40, 53)
RATES = {"encoder_rates": [2, 5], "decoder_rates": [5, 2]}
PACKAGE = {
    "encoder_dim": 4, "latent_dim": 6, "decoder_dim": 16, "n_codebooks": 2, "codebook_size": 16,
    "codebook_dim": 3, "quantizer_dropout": 0.5, "sample_rate": 16000, **RATES,
}  # fmt: skip
HUB = {
    "model_type": "dac", "encoder_hidden_size": 4, "hidden_size": 6, "decoder_hidden_size": 16,
    "downsampling_ratios": [2, 5], "upsampling_ratios": [5, 2], "n_codebooks": 2,
    "codebook_size": 16, "codebook_dim": 3, "sampling_rate": 16000, "hop_length": 10,
}  # fmt: skip
SNAC = {
    "sampling_rate": 24000, "encoder_dim": 4, "decoder_dim": 16, "attn_window_size": None,
    "codebook_size": 16, "codebook_dim": 3, "vq_strides": [2, 1], "noise": True, "depthwise": True,
    **RATES,
}  # fmt: skip


def signal(length):
    return torch.rand(2, 1, length, generator=torch.Generator().manual_seed(length)) - 0.5


def padded(x, step, extra=False):
    return F.pad(x, (0, step - x.shape[-1] % step if extra else -x.shape[-1] % step))


def hub(state):
    """The tensors of the package under the names of transformers, without weight normalisation."""
    out = {}
    for upstream, tensor in state.items():
        key, value = upstream, tensor
        if key.endswith("weight_g"):
            continue
        if key.endswith("weight_v"):
            value = dac.weight(state, key.removesuffix(".weight_v"))
        key = key.replace("weight_v", "weight").replace("decoder.model", "decoder.block")
        for side, first, last in (("encoder", 0, 3), ("decoder", 2, 0)):
            ends = {f"{side}.block.0": "conv1", f"{side}.block.3": "snake1"}
            ends[f"{side}.block.4"] = "conv2"
            found = re.match(rf"({side}\.block\.\d)\.(?!block)", key)
            if found:
                key = key.replace(found[1], f"{side}.{ends[found[1]]}")
            found = re.match(rf"{side}\.block\.(\d)\.block\.(\d)\.(?:block\.(\d)\.)?(\w+)", key)
            if found:
                level, place, inner, leaf = found.groups()
                name = {0: "snake1", 1: "conv1", 2: "snake2", 3: "conv2"}.get(int(inner or 0))
                unit = f"res_unit{int(place) - first + 1}.{name}"
                if inner is None:
                    unit = "snake1" if int(place) == last else "conv1" if last else "conv_t1"
                key = f"{side}.block.{int(level) - 1}.{unit}.{leaf}"
        out[key] = value
    return out


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "config"),
    [
        (dict, PACKAGE),
        (dac.published, PACKAGE),
        (lambda s: {"state_dict": s, "metadata": {"kwargs": PACKAGE}}, None),
        (hub, HUB),
    ],
    ids=["package", "parametrizations", "file", "hub"],
)
def test_every_layout_of_dac_gives_the_numbers_of_the_formulas(layout, config):
    state = dac.fill("dac")
    tok = from_published("dac", layout(state), config)
    assert tok.signal.sample_rate == 16000
    for length in LENGTHS:
        x = signal(length)
        z = dac.encode(state, padded(x, 10), "dac")
        torch.testing.assert_close(tok.encoder(tok.encoder.frame(x)).mT, z, rtol=1e-4, atol=1e-5)
        codes, q = dac.quantize(state, z, "dac")
        found = tok.encode(x)
        assert torch.equal(found.indices, torch.stack(codes, -1))
        expected = dac.decode(state, q, "dac")
        assert expected.shape[2] == 10 * z.shape[2] - 2  # what the published code loses
        y = tok.decode(found, raw=True)
        assert y.shape == x.shape
        count = min(length, expected.shape[2])
        torch.testing.assert_close(y[..., :count], expected[..., :count], rtol=1e-4, atol=1e-5)
        assert not y[..., count:].any()
        first = dac.quantize(state, z, "dac", (1,))[1]
        torch.testing.assert_close(
            tok.decode(found, num_codebooks=1, raw=True)[..., :count],
            dac.decode(state, first, "dac")[..., :count], rtol=1e-4, atol=1e-5,
        )  # fmt: skip


@torch.no_grad()
def test_snac_gives_the_numbers_of_the_formulas_with_the_noise_that_was_asked_for():
    state = dac.fill("snac")
    tok = from_published("snac", dac.published(state), SNAC)
    assert list(tok.decode_options) == ["generator"]
    for length in LENGTHS:
        x = signal(length)
        z = dac.encode(state, padded(x, 20), "snac")
        codes, q = dac.quantize(state, z, "snac", (2, 1))
        found = tok.encode(x)
        for ours, expected in zip(tok.quantizer.split(found.indices), codes, strict=True):
            assert torch.equal(ours[..., 0], expected)
        draw = torch.Generator()
        expected = dac.decode(state, q, "snac", draw.manual_seed(5))[..., :length]
        y = tok.decode(found, raw=True, generator=draw.manual_seed(5))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        torch.manual_seed(5)
        assert torch.equal(tok.decode(found, raw=True), y)
        assert tok.decode(found.indices).shape[-1] == z.shape[2] * 10


@torch.no_grad()
@pytest.mark.parametrize("wrapped", [False, True])
def test_bigcodec_gives_the_numbers_of_the_formulas(wrapped):
    state = dac.fill("bigcodec")
    given = state
    if wrapped:
        parts = ("CodecEnc", "generator")
        given = {p: {k[len(p) + 1 :]: v for k, v in state.items() if k.startswith(p)}
                 for p in parts}  # fmt: skip
    tok = from_published("bigcodec", given, {"encoder": {"up_ratios": [2, 5]}})
    for length in LENGTHS:
        x = signal(length)
        z = dac.encode(state, padded(x, 10, extra=True), "bigcodec")
        assert z.shape[2] == length // 10 + 1
        (codes,), q = dac.quantize(state, z, "bigcodec", (1,))
        found = tok.encode(x)
        assert torch.equal(found.indices[..., 0], codes)
        expected = dac.decode(state, q, "bigcodec")
        y = tok.decode(found, raw=True)
        torch.testing.assert_close(y, expected[..., :length], rtol=1e-4, atol=1e-5)
        y = tok.decode(found.indices, raw=True)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def bare(ratios, codebooks):
    # what configs are read from: one tensor of each kind, without weight normalisation
    state = {"encoder.block.0.weight": torch.zeros(4, 1, 7),
             "decoder.model.0.weight": torch.zeros(16, 6, 7)}  # fmt: skip
    for level, ratio in enumerate(ratios, 1):
        state[f"encoder.block.{level}.block.4.weight"] = torch.zeros(1, 1, 2 * ratio)
        state[f"decoder.model.{level}.block.1.weight"] = torch.zeros(1, 1, 2 * ratio)
    for level in range(codebooks):
        state[f"quantizer.quantizers.{level}.codebook.weight"] = torch.zeros(16, 3)
    return state


def test_published_sizes_of_dac_need_no_config():
    sizes = {(2, 4, 8, 8): {9: 44100, 18: 44100}, (2, 4, 5, 8): {32: 24000, 12: 16000}}
    for ratios, rates in sizes.items():
        for codebooks, rate in rates.items():
            found = configure_dac(bare(ratios, codebooks), {})
            assert found["signal"]["sample_rate"] == rate
    found = configure_dac(bare((2, 4, 8, 8), 9), {"sampling_rate": 48000})
    assert found["signal"]["sample_rate"] == 48000


def test_published_sizes_of_snac_need_their_rate_at_most():
    found = configure_snac(bare((2, 4, 8, 8), 3), {})
    assert found["signal"]["sample_rate"] == 24000
    assert found["quantizer"]["strides"] == [4, 2, 1]
    large = bare((2, 3, 8, 8), 4) | {"encoder.block.5.to_qkv.weight": torch.zeros(1)}
    found = configure_snac(large, {"sampling_rate": 44100})
    assert found["quantizer"]["strides"] == [8, 4, 2, 1]
    assert found["encoder"]["conventions"]["attention"] == 32
    with pytest.raises(ConfigError, match="expected the constructor value 'sampling_rate'"):
        configure_snac(large, {})


def test_wrong_files_and_values_are_named():
    state = dac.fill("dac")
    with pytest.raises(ConfigError) as error:
        from_published("dac", state)
    assert str(error.value).startswith(
        "from_published('dac'): expected the constructor value 'sample_rate'; got []."
    )
    with pytest.raises(CheckpointError) as error:
        from_published("dac", state, PACKAGE | {"n_codebooks": 9})
    assert str(error.value).startswith(
        "from_published('dac'): expected n_codebooks of 2, as the tensors have it; got 9 in config."
    )
    for family, other, what in (
        ("dac", "snac", "one with depthwise convolutions, such as SNAC."),
        ("dac", "bigcodec", "one without quantizer.quantizers.0.in_proj."),
        ("snac", "bigcodec", "one without quantizer.quantizers.0.in_proj."),
        ("bigcodec", "dac", "one without CodecEnc, the encoder."),
    ):
        with pytest.raises(CheckpointError) as error:
            from_published(family, dac.fill(other), PACKAGE)
        assert str(error.value) == (
            f"from_published('{family}'): expected a checkpoint of this family; got {what}"
        )
