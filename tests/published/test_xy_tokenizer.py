"""Imported XY-Tokenizer gives what functions written from the formulas give."""

import pytest
import torch
from reference import whisper
from reference.published_checks import check_strictness, message

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

HEADS = {"semantic_encoder_kwargs": {"encoder_attention_heads": 2}}


@torch.no_grad()
def test_tokens_and_samples_are_those_of_the_formulas():
    state = whisper.published_xy()
    tok = from_published("xy_tokenizer", {"generator": state}, HEADS)
    x = torch.rand(5 * 1280 + 700) - 0.5
    codes = tok.encode(x[None, None])
    # theirs are those of whole positions, and of 30 s of which most is silence
    expected = whisper.xy_tokens(state, x, heads=2)
    assert torch.equal(codes.indices[0, :5], expected)
    assert codes.indices.shape == (1, 6, 3)
    samples = whisper.xy_samples(state, expected, heads=2)
    got = tok.decode(expected[None], raw=True)[0, 0]
    torch.testing.assert_close(got, samples, rtol=1e-3, atol=1e-4)
    assert tok.decode(codes).shape == (1, 1, len(x))
    few = tok.encode(x[None, None], num_codebooks=2)
    assert torch.equal(few.indices, codes.indices[..., :2])


def test_moving_averages_come_along():
    state = whisper.published_xy()
    head = from_published("xy_tokenizer", state, HEADS).quantizer
    for n, stage in enumerate(head.stages):
        assert torch.equal(stage.cluster_sum, state[f"quantizer.quantizers.{n}.embed_avg"])
        assert bool(stage.initialized)


def test_wrong_files_and_values_are_named():
    state = whisper.published_xy()
    check_strictness(
        "xy_tokenizer", state, HEADS,
        key="pre_rvq_adapter.layers.0.fc1.bias", shown="encoder.joined.layers.0.mlp.up.bias",
    )  # fmt: skip
    where = "from_published('xy_tokenizer'): expected"
    found = message("xy_tokenizer", state, {"vocos_kwargs": {"num_layers": 30}})
    assert found == (
        f"{where} num_layers of 1, as the tensors have it; got 30 in config. Pass the constructor "
        "values of this checkpoint."
    )
    found = message("xy_tokenizer", state, {"sample_rate": 24000}, error=ConfigError)
    assert found == (
        f"{where} sample_rate of 16000; got 24000. No published network of this kind has another."
    )
    other = HEADS | {"acoustic_decoder_kwargs": {"decoder_attention_heads": 4}}
    assert message("xy_tokenizer", state, other, error=ConfigError) == (
        f"{where} one number of attention heads in all transformers; got [2, 4]. No published "
        "network of this kind has several."
    )
    assert message("xy_tokenizer", {"a": torch.zeros(1)}) == (
        f"{where} a checkpoint of this family; got one without semantic_encoder_adapter."
    )


@pytest.mark.parametrize("heads", [None, 1])
def test_heads_are_64_wide_unless_told(heads):
    config = {"semantic_encoder_kwargs": {"encoder_attention_heads": heads}} if heads else None
    tok = from_published("xy_tokenizer", whisper.published_xy(), config)
    assert tok.config["encoder"]["heads"] == 1
