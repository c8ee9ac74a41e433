"""The imported tokenizer of GLM-4-Voice gives what functions written from the formulas give."""

import pytest
import torch
from reference import whisper
from reference.published_checks import check_strictness, message

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published
from tokenizers_vq.published.glm4_voice import configure

CASE = {
    "encoder_layers": 3, "encoder_attention_heads": 2, "pooling_kernel_size": 4,
    "pooling_type": "avg", "pooling_position": 2, "quantize_position": 2,
    "quantize_causal_block_size": 8, "encoder_causal_convolution": True, "num_mel_bins": 20,
}  # fmt: skip
OTHERS = {
    "hub": {},
    "a layer behind the pooling": {"pooling_position": 1},
    "the largest": {"pooling_type": "max", "encoder_causal_convolution": False},
    "no blocks": {"quantize_causal_block_size": None, "pooling_position": 1},
}


@torch.no_grad()
@pytest.mark.parametrize("values", OTHERS.values(), ids=OTHERS)
def test_numbers_are_those_of_the_formulas(values):
    config = CASE | values
    state = whisper.published_glm(config)
    tok = from_published("glm4_voice", state, config)
    inside = {key.removeprefix("model.encoder."): value for key, value in state.items()}
    assert tok.stride == (1280,)
    for length in (1, 1280, 7000, 12800):
        generator = torch.Generator().manual_seed(length)
        x = torch.rand(2, length, generator=generator) - 0.5
        rows = whisper.glm(inside, x, config)
        torch.testing.assert_close(tok.encoder(x[:, None]), rows, rtol=1e-4, atol=1e-4)
        codes = tok.encode(x[:, None]).indices
        assert torch.equal(codes, whisper.nearest(rows, inside["codebook.weight"]))
        assert codes.shape == (2, -(-length // 1280), 1)


@torch.no_grad()
def test_longer_signals_are_pieces_by_themselves():
    state = whisper.published_glm(CASE)
    tok = from_published("glm4_voice", state, CASE)
    x = torch.rand(1, 1, 2 * 12800 + 3000) - 0.5
    whole = tok.encode(x).indices
    parts = [tok.encode(part).indices for part in x.split(12800, dim=-1)]
    assert torch.equal(whole, torch.cat(parts, dim=1))
    assert whole.shape[1] == tok.encoder.grid((x.shape[-1],))[0]


def test_the_published_size_needs_no_config():
    state = {"conv1.weight": torch.zeros(1280, 128, 3), "codebook.weight": torch.zeros(16384, 1),
             "embed_positions.weight": torch.zeros(1500, 1),
             "embed_positions2.weight": torch.zeros(375, 1)}  # fmt: skip
    state |= {f"layers.{i}.fc1.weight": torch.zeros(5120, 1) for i in range(32)}
    network = configure(state, {})["encoder"]
    assert (network["layers"], network["heads"]) == (16, 20)
    ways = network["conventions"]
    assert (ways["pool"], ways["pool_kind"], ways["pool_after"]) == (4, "mean", 16)
    assert (ways["causal"], ways["block"]) == (True, 200)


def test_moving_averages_come_along():
    state = whisper.published_glm(CASE)
    head = from_published("glm4_voice", state, CASE).quantizer
    assert torch.equal(head.cluster_size, state["model.encoder.ema_count"])
    assert torch.equal(head.cluster_sum, state["model.encoder.ema_weight"])


def test_wrong_files_and_values_are_named():
    state = whisper.published_glm(CASE)
    inside = {key.removeprefix("model.encoder."): value for key, value in state.items()}
    check_strictness(
        "glm4_voice",
        inside,
        CASE,
        key="layers.1.fc2.bias",
        shown="encoder.stack.layers.1.mlp.down.bias",
    )
    assert message("glm4_voice", state, error=ConfigError) == (
        "from_published('glm4_voice'): expected the constructor value 'pooling_kernel_size'; got "
        "[]. The weights alone do not determine it: pass it in config."
    )
    assert message("glm4_voice", state, CASE | {"num_mel_bins": 128}) == (
        "from_published('glm4_voice'): expected num_mel_bins of 20, as the tensors have it; got "
        "128 in config. Pass the constructor values of this checkpoint."
    )
    assert message("glm4_voice", state, CASE | {"pooling_type": "sum"}, error=ConfigError) == (
        "whisper: expected pool_kind of mean or max; got 'sum'. Correct the backbone config."
    )
    assert message("glm4_voice", {"conv1.weight": torch.zeros(1)}) == (
        "from_published('glm4_voice'): expected a checkpoint of this family; got one without "
        "codebook.weight and embed_positions.weight of an encoder."
    )
