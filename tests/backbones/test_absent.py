import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.hub import load
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes

CONFIG = {
    "signal": {"kind": "audio", "channels": 1, "sample_rate": 24000},
    "dim": 4,
    "encoder": {"name": "absent", "stride": [8]},
    "quantizer": {"name": "vq", "codebook_size": 16},
    "decoder": {"name": "vocos", "stride": 8, "width": 8, "inner": 8, "depth": 1},
}


def test_a_tokenizer_without_an_encoder_decodes_and_says_so():
    tokenizer = Tokenizer.from_config(CONFIG).eval()
    assert tokenizer.decode(torch.zeros(2, 5, 1, dtype=torch.int64)).shape == (2, 1, 40)
    with pytest.raises(ConfigError) as error:
        tokenizer.encode(torch.zeros(1, 1, 40))
    assert str(error.value) == (
        "encode: expected a tokenizer with an encoder; got one that was published without. "
        "Decode the tokens of the tokenizer it was trained for."
    )


def test_a_tokenizer_without_a_decoder_encodes_and_says_so(tmp_path):
    part = {"name": "seanet", "width": 2, "ratios": [4, 2]}
    config = CONFIG | {"encoder": part, "decoder": {"name": "absent", "stride": [8]}}
    tokenizer = Tokenizer.from_config(config, name="seanet.alone").eval()
    assert not tokenizer.decodable
    assert Tokenizer.from_config(CONFIG).decodable
    codes = tokenizer.encode(torch.zeros(2, 1, 41))
    assert codes.indices.shape == (2, 6, 1)
    for call in (lambda: tokenizer.decode(codes), lambda: tokenizer(torch.zeros(1, 1, 8))):
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == (
            "decode: expected a tokenizer with a decoder; got one that only encodes. Give its "
            "tokens to a language model or to a vocoder that was trained for them."
        )
    with pytest.raises(ConfigError) as error:
        _ = tokenizer.decoder.last_layer
    assert str(error.value) == (
        "training: expected a tokenizer with a decoder; got one that only encodes. Put a decoder "
        "of its stride behind it."
    )
    tokenizer.save(tmp_path / "folder")
    again = load(tmp_path / "folder")
    assert torch.equal(again.encode(torch.zeros(2, 1, 41)).indices, codes.indices)
    assert codes.save(tmp_path / "tokens.tok") > 0
    assert torch.equal(Codes.load(tmp_path / "tokens.tok").indices, codes.indices)
