"""Imported S3 tokenizers give what functions written from the formulas give."""

import pytest
import torch
from reference import whisper
from reference.published_checks import check_strictness, message

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

V1, V2 = {"n_audio_head": 2, "n_mels": 20}, {"n_audio_head": 2, "n_codebook_size": 6561}
NODES = {"weight": "MatMul", "bias": "Add"}


def speech(length, batch=1):
    generator = torch.Generator().manual_seed(length)
    return torch.rand(batch, length, generator=generator) - 0.5


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 150, 1000, 6000])
@pytest.mark.parametrize(("rate", "stride"), [("50hz", 1), ("25hz", 2)])
def test_version_1_takes_the_nearest_code_of_rows_of_unit_length(rate, stride, length):
    state = whisper.published_s3(1)
    tok = from_published("s3_tokenizer", state, {**V1, "name": f"speech_tokenizer_v1_{rate}"})
    x = speech(length, 2)
    rows = whisper.s3(state, x, heads=2, strides=(stride, 2))
    rows = rows / rows.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(tok.encoder(x[:, None]), rows, rtol=1e-4, atol=1e-4)
    codes = tok.encode(x[:, None])
    assert torch.equal(codes.indices, whisper.nearest(rows, state["quantizer._codebook.embed"]))
    assert tok.stride == (320 * stride,)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 150, 1000, 6000])
def test_version_2_rounds_eight_channels_to_three_levels(length):
    state = whisper.published_s3(2)
    tok = from_published("s3_tokenizer", state, V2)
    x = speech(length, 2)
    rows = whisper.s3(state, x, heads=2, strides=(2, 2), eps=1e-6)
    torch.testing.assert_close(tok.encoder.hidden(x[:, None]), rows, rtol=1e-4, atol=1e-4)
    down = whisper.affine(state, "quantizer._codebook.project_down", rows)
    digits = (down.tanh() * 0.9990000128746033).round().long() + 1
    index = sum(digits[..., i] * 3**i for i in range(8))
    assert torch.equal(tok.encode(x[:, None]).indices[..., 0], index)
    assert tok.encode(x[:, None]).indices.shape[1] == -(-max(1, length // 160) // 4)


def test_initializers_under_the_names_of_nodes():
    state = whisper.published_s3(2)
    nodes = {}
    for key, value in state.items():
        if not key.startswith("encoder.blocks."):
            nodes[key] = value
            continue
        layer, _, path = key.removeprefix("encoder.blocks.").partition(".")
        module, _, kind = path.rpartition(".")
        norm = module.endswith("_ln")
        name = "/".join(["", f"blocks.{layer}", *module.split(".", 1 if "mlp." in module else -1)])
        name = name.replace("/mlp/", "/mlp/mlp.")
        node = ("Mul" if kind == "weight" else "Add_1") if norm else NODES[kind]
        node = "Conv" if module.endswith("fsmn_block") else node
        nodes[f"{name}/{node}"] = value.T if value.ndim == 2 else value
    assert "/blocks.0/attn/query/MatMul" in nodes
    assert "/blocks.1/mlp/mlp.2/Add" in nodes
    one, other = (from_published("s3_tokenizer", tensors, V2) for tensors in (state, nodes))
    for key, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_long_signals_are_seen_in_windows_with_four_seconds_in_common():
    tok = from_published("s3_tokenizer", whisper.published_s3(2), V2)
    second = 16000
    spans = [tuple(n / second for n in span) for span in tok.encoder.windows.spans(60 * second)]
    assert spans == [(0, 30, 0, 28), (26, 56, 28, 54), (52, 60, 54, 60)]
    assert len(tok.encoder.windows.spans(30 * second)) == 1
    assert tok.encoder.grid((60 * second,)) == (1500,)
    assert tok.encoder.grid((30 * second + 159,)) == (750,)
    assert tok.encoder.grid((31 * second,)) == (775,)


@torch.no_grad()
def test_windows_share_the_spectra_of_the_whole_signal():
    tok = from_published("s3_tokenizer", whisper.published_s3(2, width=4, layers=1), V2)
    x = speech(31 * 16000)[:, None]
    spectra = whisper.log_mel(x[:, 0], 20, 3100).float()
    parts = [tok.encoder._rows(spectra[..., :3000], 0)[:, :700]]
    parts.append(tok.encoder._rows(spectra[..., 2600:], 0)[:, 50:])
    rows = tok.encoder.out(torch.cat(parts, dim=1))
    torch.testing.assert_close(tok.encoder(x), rows, rtol=1e-3, atol=1e-3)
    assert torch.equal(tok.encode(x).indices, tok.quantizer.encode(tok.encoder(x)))


def test_it_only_encodes():
    tok = from_published("s3_tokenizer", whisper.published_s3(1), V1)
    codes = tok.encode(torch.zeros(1, 1, 5000))
    assert not tok.decodable
    for call in (lambda: tok.decode(codes), lambda: tok.decode(codes.indices)):
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == (
            "decode: expected a tokenizer with a decoder; got one that only encodes. Give its "
            "tokens to a language model or to a vocoder that was trained for them."
        )


def test_wrong_files_and_values_are_named():
    state = whisper.published_s3(2)
    check_strictness(
        "s3_tokenizer", state, V2,
        key="encoder.blocks.1.mlp_ln.bias", shown="encoder.stack.layers.1.norm2.bias",
    )  # fmt: skip
    where = "from_published('s3_tokenizer'): expected"
    assert message("s3_tokenizer", state, {"n_codebook_size": 4096}) == (
        f"{where} n_codebook_size of 6561, as the tensors have it; got 4096 in config. Pass the "
        "constructor values of this checkpoint."
    )
    assert message("s3_tokenizer", state, {"n_audio_head": 5}) == (
        f"{where} heads that divide the width 12; got 5. Pass the constructor values of this "
        "checkpoint."
    )
    assert message("s3_tokenizer", {"onnx::Conv_2216": torch.zeros(1)}) == (
        f"{where} a checkpoint of this family; got initializers without a name (onnx::Conv_2216), "
        "which only the graph can tell apart: pass the state dict that the S3Tokenizer package "
        "makes of the file."
    )
    assert message("s3_tokenizer", {"encoder.conv1.weight": torch.zeros(1)}) == (
        f"{where} a checkpoint of this family; got one without quantizer._codebook.embed or "
        "quantizer._codebook.project_down.weight, its codebook."
    )
