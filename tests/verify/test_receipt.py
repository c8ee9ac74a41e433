import importlib.util
import json
from pathlib import Path

import pytest
import torch
from reference.mean_codec import MeanCodec

from tokenizers_vq import cli
from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.verify.properties import PROPERTIES
from tokenizers_vq.verify.receipt import tokenizer_from, verify

FOREIGN = Path(__file__).resolve().parents[2] / "eval" / "foreign.py"
OURS = [("tiny_cnn2d", "fsq"), ("tiny_titok", "vq"), ("tiny_seanet", "rvq")]


@pytest.fixture(scope="module")
def foreign():
    spec = importlib.util.spec_from_file_location("foreign", FOREIGN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(receipt):
    return {name: one["verdict"] for name, one in receipt["properties"].items()}


@pytest.mark.parametrize(("backbone", "head"), OURS)
def test_ours_break_nothing(backbone, head):
    tokenizer = Tokenizer.from_config(tokenizer_config(backbone, head), name="ours.test").eval()
    receipt = verify(tokenizer)
    assert receipt["broken"] == []
    claimed = verdicts(receipt)["the_future_is_unseen"] != "not claimed"
    assert claimed == (backbone == "tiny_seanet")


def test_a_receipt_is_written_and_can_be_read(tmp_path):
    receipt = verify(MeanCodec("careless"), tmp_path, command="tvq verify x")
    assert json.loads((tmp_path / "receipt.json").read_text()) == json.loads(json.dumps(receipt))
    assert set(receipt["properties"]) == set(PROPERTIES)
    assert receipt["kept"] == 10
    assert receipt["broken"] == ["bad_indices_are_refused"]
    page = (tmp_path / "receipt.md").read_text()
    assert page.startswith(
        "# Receipt of mean.test\n\nKeeps 10 of 11 properties. Broken: bad indices are refused.\n"
    )
    row = "| bad indices are refused | **broken** | decoded without a word: index "
    assert row + "the size of the codebook and -2 |" in page
    assert "`tvq verify x`" in page


def test_an_error_is_a_finding(tmp_path):
    codec = MeanCodec()
    codec.signals = None
    receipt = verify(codec)
    one = receipt["properties"]["decode_is_deterministic"]
    assert one["verdict"] == "broken"
    assert one["text"] == "TypeError: 'NoneType' object is not callable"


def test_transformers_models_are_examined_by_their_adapters(foreign):
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

    torch.manual_seed(0)
    codes, rates = {"codebook_size": 16}, {"upsampling_ratios": [2, 2]}
    small = {**codes, **rates, "num_filters": 4, "codebook_dim": 8}
    encodec = EncodecModel(EncodecConfig(**small, hidden_size=8, num_lstm_layers=1))
    dac = {**codes, **rates, "downsampling_ratios": [2, 2], "codebook_dim": 4, "n_codebooks": 2}
    dac = DacModel(DacConfig(**dac, encoder_hidden_size=4, decoder_hidden_size=16))
    mimi = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8, "upsample_groups": 16}
    mimi |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    mimi |= {"num_quantizers": 2, "num_semantic_quantizers": 1, "sampling_rate": 16}
    mimi |= {"frame_rate": 2.0, "vector_quantization_hidden_dimension": 8}
    mimi = MimiModel(MimiConfig(**small, **mimi))
    found = {
        "encodec": verify(foreign.awake(foreign.EnCodec(encodec))),
        "dac": verify(foreign.DAC(dac)),
        "mimi": verify(foreign.awake(foreign.Mimi(mimi))),
    }
    # without a mask the zeros behind the end are seen; how many tokens that moves is chance
    seen = {"padding_changes_nothing"}
    broken = {name: set(receipt["broken"]) - seen for name, receipt in found.items()}
    # DAC's decoder gives less than was encoded, unless that was whole positions
    assert broken == {"encodec": set(), "mimi": set(), "dac": {"sizes_are_exact"}}
    assert "padding_changes_nothing" in found["dac"]["broken"]
    claims = [verdicts(one)["the_future_is_unseen"] != "not claimed" for one in found.values()]
    assert claims == [True, False, True]
    assert all(int(one["facts"]["different tokens seen"]) > 3 for one in found.values())


def test_heads_of_the_peer_are_examined_by_one_adapter(foreign):
    for maker in (foreign.peer_vq, foreign.peer_rvq, foreign.peer_fsq):
        receipt = verify(maker())
        assert "bad_indices_are_refused" in receipt["broken"]
        assert verdicts(receipt)["index_round_trip"] == "exact"


def test_the_command_takes_an_adapter_and_says_what_is_broken(tmp_path, capsys):
    adapter = tmp_path / "mine.py"
    adapter.write_text("from reference.mean_codec import MeanCodec as Codec\n"
                       "careless = lambda: Codec('careless')\n")  # fmt: skip
    words = ["verify", f"{adapter}:careless", "-o", str(tmp_path / "out")]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "broken  bad indices are refused: decoded without a word" in said
    assert "Keeps 10 of 11 properties." in said
    assert cli.main([*words, "--strict"]) == 1


def test_names_that_lead_nowhere_are_errors(tmp_path):
    with pytest.raises(CheckpointError) as error:
        tokenizer_from("none.py:make")
    assert str(error.value) == ("verify: expected a Python file; got 'none.py'. Check the path.")
    adapter = tmp_path / "mine.py"
    adapter.write_text("def make(): ...\n")
    with pytest.raises(ConfigError) as error:
        tokenizer_from(f"{adapter}:made")
    assert str(error.value) == (
        f"verify: expected a callable 'made' in '{adapter}'; it has make. "
        "Name a function that returns a Foreign."
    )
    with pytest.raises(ConfigError) as error:
        tokenizer_from("no_such_module:make")
    assert str(error.value) == (
        "verify: expected a module or a file; got 'no_such_module' (No module named "
        "'no_such_module'). Name it module:callable or file.py:callable."
    )
