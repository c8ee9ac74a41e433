import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer

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
