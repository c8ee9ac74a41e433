"""Imported EnCodec and SpeechTokenizer give what functions written from the formulas give."""

import re

import pytest
import torch
from reference import seanet

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published import from_published
from tokenizers_vq.published.encodec import configure

RATIOS = (4, 2)
CASE = {"n_filters": 2, "dimension": 4, "ratios": [4, 2], "lstm": 2, "n_q": 3, "bins": 16}
HUB = {
    "model_type": "encodec", "num_filters": 2, "hidden_size": 4, "upsampling_ratios": [4, 2],
    "audio_channels": 1, "sampling_rate": 24000, "use_causal_conv": True, "pad_mode": "reflect",
    "norm_type": "weight_norm", "num_lstm_layers": 2, "codebook_size": 16, "normalize": False,
    "chunk_length_s": None, "overlap": None, "use_conv_shortcut": True, "trim_right_ratio": 1.0,
    "dilation_growth_rate": 2, "transformers_version": "4.31.0", "architectures": ["EncodecModel"],
}  # fmt: skip
LIBRARY = {
    "encodec": {"autoencoder": "seanet", "sample_rate": 24000, "causal": True},
    "seanet": {"dimension": 4, "n_filters": 2, "ratios": [4, 2], "pad_mode": "reflect",
               "true_skip": False, "encoder": {}, "decoder": {"trim_right_ratio": 1.0}},
    "rvq": {"n_q": 3, "bins": 16},
    "dataset": {"sample_rate": 1},
}  # fmt: skip


def hub_names(state, parts=("weight_g", "weight_v")):
    """The same tensors under the names of transformers."""
    out = {}
    for key, value in state.items():
        name = key.replace(".model.", ".layers.").replace("vq.layers", "layers")
        name = re.sub(r"(conv|convtr)\.(conv|convtr)\.", "conv.", name)
        name = re.sub(r"\.(conv|convtr)\.norm\.", ".norm.", name).replace("_codebook", "codebook")
        out[name.replace("weight_g", parts[0]).replace("weight_v", parts[1])] = value
    return out


def library_names(state):
    return {"best_state": state, "xp.cfg": "text", "exported": True}


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "config"),
    [
        (dict, CASE | {"causal": True, "norm": "weight_norm", "sample_rate": 24000}),
        (hub_names, HUB),
        (lambda s: hub_names(s, ("parametrizations.weight.original0",
                                 "parametrizations.weight.original1")), HUB),
        (library_names, LIBRARY),
        (dict, None),
    ],
    ids=["package", "hub", "parametrizations", "library", "nothing"],
)  # fmt: skip
def test_every_layout_gives_the_numbers_of_the_formulas(layout, config):
    state = seanet.published()
    tok = from_published("encodec", layout(state), config)
    assert tok.signal.sample_rate == 24000
    for length in (1, 7, 8, 9, 201):
        x = torch.rand(2, 1, length, generator=torch.Generator().manual_seed(length)) - 0.5
        z = seanet.encoder(state, x, RATIOS, causal=True)
        torch.testing.assert_close(tok.encoder(x).mT, z, rtol=1e-4, atol=1e-5)
        indices, q = seanet.codes(state, z, 3)
        codes = tok.encode(x)
        assert torch.equal(codes.indices, indices)
        expected = seanet.decoder(state, q, RATIOS, causal=True)[..., :length]
        torch.testing.assert_close(tok.decode(codes, raw=True), expected, rtol=1e-4, atol=1e-5)
        for count in (1, 2):
            first = tok.encode(x, num_codebooks=count)
            assert torch.equal(first.indices, indices[..., :count])
            assert torch.equal(tok.decode(first), tok.decode(codes, num_codebooks=count))


@torch.no_grad()
@pytest.mark.parametrize("length", [8, 237, 238, 241, 500])
def test_segments_carry_their_loudness_and_are_blended(length):
    state = seanet.published(channels=2, group=True)
    config = {"segment": 0.24, "sample_rate": 1000, "normalize": True, "channels": 2}
    tok = from_published("encodec", state, config)
    x = torch.rand(2, 2, length, generator=torch.Generator().manual_seed(0)) - 0.5
    indices, scale, audio = seanet.segmented(state, x, RATIOS, 3, 240, 237)
    codes = tok.encode(x)
    assert torch.equal(codes.indices, indices)
    torch.testing.assert_close(codes.scale, scale)
    torch.testing.assert_close(tok.decode(codes, raw=True), audio, rtol=1e-4, atol=1e-5)
    assert torch.equal(tok.decompress(tok.compress(x)), tok.decode(codes))


def test_the_later_library_has_no_shortcut_convolutions_and_pads_with_zeros():
    state = {k: v for k, v in seanet.published().items() if "shortcut" not in k}
    tok = from_published("encodec", state, {"causal": False, "sample_rate": 32000})
    ways = tok.config["encoder"]["conventions"]
    assert (ways["shortcut"], ways["pad"], ways["causal"]) == (False, "zeros", False)


@pytest.mark.parametrize(
    ("layer", "conv", "ratios", "found"),
    [
        ("model", "conv.conv", (8, 5, 4, 4), (32000, "zeros")),
        ("model", "conv.conv", (8, 5, 4, 2), (16000, "zeros")),
        ("layers", "conv", (8, 5, 4, 4), (32000, "reflect")),
    ],
    ids=["MusicGen", "AudioGen", "MusicGen of transformers"],
)
def test_the_later_librarys_networks_need_no_config(layer, conv, ratios, found):
    state = {f"encoder.{layer}.0.{conv}.weight": torch.zeros(64, 1, 7),
             f"encoder.{layer}.0.{conv}.bias": torch.zeros(64),
             f"encoder.{layer}.13.lstm.weight_hh_l0": torch.zeros(1),
             f"encoder.{layer}.15.{conv}.weight": torch.zeros(128, 1, 7),
             "quantizer.layers.0.codebook.embed": torch.zeros(2048, 1)}  # fmt: skip
    for level, ratio in enumerate(reversed(ratios)):
        place = f"encoder.{layer}.{3 * level + 1}.block.1.{conv}.weight"
        state[place] = torch.zeros(1, 2, 3)
        state[f"encoder.{layer}.{3 * level + 3}.{conv}.weight"] = torch.zeros(1, 1, 2 * ratio)
    config = configure(state, {})
    ways = config["encoder"]["conventions"]
    assert (config["signal"]["sample_rate"], ways["pad"]) == found
    assert not ways["causal"]


def test_averages_of_the_codebooks_come_along():
    state = seanet.published()
    stage = from_published("encodec", state, CASE).quantizer.stages[1]
    key = "quantizer.vq.layers.1._codebook."
    assert torch.equal(stage.cluster_sum, state[key + "embed_avg"])
    assert torch.equal(stage.cluster_size, state[key + "cluster_size"])
    assert float(stage.initialized) == 1


@torch.no_grad()
@pytest.mark.parametrize("family", ["speechtokenizer", "dm_codec"])
def test_speechtokenizer_runs_in_both_directions(family):
    state = seanet.published(both=True)
    state |= {"transform.weight": torch.zeros(3, 4), "transform.bias": torch.zeros(3)}
    config = {"n_filters": 2, "strides": [4, 2], "dimension": 4, "bidirectional": True,
              "lstm_layers": 2, "codebook_size": 16, "n_q": 3, "batch_size": 9}  # fmt: skip
    tok = from_published(family, state, config)
    x = torch.rand(1, 1, 100) - 0.5
    z = seanet.encoder(state, x, RATIOS, causal=False, both=True)
    indices, q = seanet.codes(state, z, 3)
    assert torch.equal(tok.encode(x).indices, indices)
    expected = seanet.decoder(state, q, RATIOS, causal=False)[..., :100]
    torch.testing.assert_close(tok.decode(tok.encode(x), raw=True), expected, rtol=1e-4, atol=1e-5)
    last = indices.clone()
    last[..., 0] = -1  # all but the taught codebook
    assert tok.decode(last).shape == (1, 1, 104)


def first_line(error):
    return str(error.value).splitlines()[0]


def test_what_does_not_fit_is_named():
    state = seanet.published()
    with pytest.raises(CheckpointError) as error:
        from_published("encodec", state, {"n_q": 32})
    assert first_line(error) == (
        "from_published('encodec'): expected levels of 3, as the tensors have it; got 32 in "
        "config. Pass the constructor values of this checkpoint."
    )
    with pytest.raises(ConfigError) as error:
        from_published("encodec", state, {"pad_mode": "circular"})
    assert first_line(error) == (
        "from_published: expected a pad_mode of constant, reflect, replicate; got 'circular'. "
        "Pass the constructor values of the published model."
    )
    with pytest.raises(ConfigError) as error:
        from_published("encodec", state, {"trim_right_ratio": 0.5})
    assert first_line(error) == (
        "from_published: expected a trim_right_ratio of 1 and no final_activation; got other "
        "ones. No published network of this shape has them."
    )
    with pytest.raises(CheckpointError) as error:
        from_published("encodec", seanet.published(both=True))
    assert first_line(error) == (
        "from_published('encodec'): expected a checkpoint of this family; got one with "
        "bidirectional recurrent layers, as SpeechTokenizer has them."
    )
