"""Imported S3 tokenizers give what functions written from the formulas give."""

import sys

import onnx
import pytest
import torch
from onnx import helper
from onnx.numpy_helper import from_array
from reference import whisper
from reference.published_checks import check_strictness, message

from tokenizers_vq.errors import CheckpointError, ConfigError, MissingExtraError
from tokenizers_vq.published import from_published
from tokenizers_vq.published.loading import import_file, read_file

V1, V2 = {"n_audio_head": 2, "n_mels": 20}, {"n_audio_head": 2, "n_codebook_size": 6561}


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


def by_nodes(state):
    """What a published graph does with each tensor: ``(node, op, {slot: (name, value)})``."""
    found = {}

    def use(node, op, slot, key, *, turned=False):
        value = state[key].T.contiguous() if turned else state[key]
        anonymous = f"onnx::{op}_{sum(map(len, found.values()))}"
        found.setdefault((node, op), {})[slot] = (anonymous, value)

    for n in (1, 2):
        for slot, part in enumerate(("weight", "bias"), 1):
            use(f"/conv{n}/Conv", "Conv", slot, f"encoder.conv{n}.{part}")
    for key in state:
        if not key.startswith("encoder.blocks."):
            continue
        layer, _, path = key.removeprefix("encoder.blocks.").partition(".")
        module, _, kind = path.rpartition(".")
        name = "/".join(["", f"blocks.{layer}", *module.split(".", 1 if "mlp." in module else -1)])
        name = name.replace("/mlp/", "/mlp/mlp.")
        if module.endswith("_ln") and "quantizer._codebook.embed" not in state:
            slot = 1 if kind == "weight" else 2
            use(f"{name}/LayerNormalization", "LayerNormalization", slot, key)
        elif module.endswith("_ln"):
            node = "Mul" if kind == "weight" else "Add_1"
            use(f"{name}/{node}", node.removesuffix("_1"), 1, key)
        elif module.endswith("fsmn_block"):
            use(f"{name}/Conv", "Conv", 1, key)
        else:
            node = "MatMul" if kind == "weight" else "Add"
            use(f"{name}/{node}", node, 1, key, turned=kind == "weight")
    code = "quantizer._codebook."
    if code + "embed" in state:
        use("/quantizer/rq/model/layers.0/_codebook/Pow_1", "Pow", 0, code + "embed", turned=True)
        use(
            "/quantizer/rq/model/layers.0/_codebook/MatMul",
            "MatMul",
            1,
            code + "embed",
            turned=True,
        )
        found[("/Add", "Add")] = {
            1: ("encoders.positional_embedding", state["encoder.positional_embedding"])
        }
    else:
        use("/quantizer/project_in/MatMul", "MatMul", 1, code + "project_down.weight", turned=True)
        found[("/quantizer/project_in/Add", "Add")] = {
            0: ("quantizer.project_in.bias", state[code + "project_down.bias"])
        }
    return found


def write_graph(path, uses):
    """Write an ONNX file of nodes in a row, with a count and a scalar that mean nothing."""
    nodes, tensors, before = [], {}, "x"
    uses = {**uses, ("/Reshape", "Reshape"): {1: ("shape", torch.tensor([1, -1]))},
            ("/Mul", "Mul"): {1: ("half", torch.tensor(0.5))}}  # fmt: skip
    for (name, op), inputs in uses.items():
        slots = [before] * (1 + max(inputs))
        for slot, (tensor, value) in inputs.items():
            slots[slot], tensors[tensor] = tensor, from_array(value.numpy(), tensor)
        nodes.append(helper.make_node(op, slots, [name], name=name))
        before = name
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [], [], list(tensors.values()))), path
    )


@pytest.mark.parametrize(("version", "values"), [(1, V1), (2, V2)])
def test_published_graphs_load(tmp_path, version, values):
    state = whisper.published_s3(version)
    uses = by_nodes(state)
    assert ("/blocks.0/attn/query/MatMul", "MatMul") in uses
    assert ("/blocks.1/mlp/mlp.2/Add", "Add") in uses
    path = tmp_path / f"speech_tokenizer_v{version}.onnx"
    write_graph(path, uses)
    tok = import_file([path], "s3_tokenizer", values)
    for key, value in from_published("s3_tokenizer", state, values).state_dict().items():
        assert torch.equal(tok.state_dict()[key], value), key


def test_other_graphs_are_named(tmp_path, monkeypatch):
    path = tmp_path / "other.onnx"
    write_graph(path, {("/fc/MatMul", "MatMul"): {1: ("w", torch.zeros(2, 2))}})
    where = "import: expected"
    with pytest.raises(CheckpointError) as error:
        read_file(path)
    assert str(error.value) == (
        f"{where} the graph of an S3 tokenizer, with nodes such as /blocks.0/attn/query/MatMul; "
        f"got {path}. Other graphs are not read: save the weights."
    )
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError) as error:
        read_file(path)
    assert str(error.value) == (
        f"{where} the package onnx, which reads graphs; got none. Run pip install "
        "'tokenizers-vq[onnx]'."
    )


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
        "which only the graph can tell apart: import the file with `tvq import`."
    )
    assert message("s3_tokenizer", {"encoder.conv1.weight": torch.zeros(1)}) == (
        f"{where} a checkpoint of this family; got one without quantizer._codebook.embed or "
        "quantizer._codebook.project_down.weight, its codebook."
    )
