"""KARL: sizes of the paper, and how it trains."""

import pytest
import torch

from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer

VQ = {"name": "vq", "codebook_size": 4096, "metric": "cosine"}


def test_the_small_model_has_the_published_size():
    with torch.device("meta"):
        tok = Tokenizer.from_config({**read_config("backbone", "karl_small"), "quantizer": VQ})
    assert round(sum(p.numel() for p in tok.parameters()) / 1e6, 2) == 270.91
    assert tok.encoder.num_tokens == 256
    assert tok.encoder.counts[-1] == 512


def tiny():
    small = {"name": "vq", "codebook_size": 64, "metric": "cosine"}
    config = {**read_config("backbone", "tiny_karl"), "quantizer": small}
    return Tokenizer.from_config(config).train()


def test_a_training_step_has_two_forwards_and_leaves_the_base_alone():
    tok, x = tiny(), torch.rand(2, 3, 32, 32) * 2 - 1
    made = tok.decoder.training_pass(tok, x, 0)
    assert set(made.terms) == {"nll", "code", "halt"}
    assert made.x_hat.shape == made.target.shape == (4, 3, 32, 32)
    assert made.target.equal(torch.cat([x, x]))
    assert made.z.shape[1] - 8 in {2, 4, 6}  # a drawn number, then all of them
    # an untrained model: log 2 for what should be needed in either forward, and for the rest
    assert made.terms["halt"].item() == pytest.approx(3 * 0.6931, rel=0.05)
    assert made.terms["nll"].item() == pytest.approx(2 * 2.7726, rel=0.02)
    (sum(made.terms.values()) + made.quantized.loss).backward()
    learns = {name for name, p in tok.named_parameters() if p.grad is not None}
    assert not any(".base." in name or "painter.codebook" in name for name in learns)
    assert {"encoder.halt.2.weight", "encoder.errors", "decoder.embed.weight"} <= learns


def test_the_second_forward_has_all_tokens_whatever_the_budget():
    tok = tiny()
    tok.encoder.budget = 3  # smaller than what the first forward may draw
    made = tok.decoder.training_pass(tok, torch.rand(1, 3, 32, 32) * 2 - 1, 0)
    assert made.z.shape[1] - 8 in {2, 4, 6}


def test_the_second_stage_teaches_pixels():
    tok, x = tiny(), torch.rand(1, 3, 32, 32) * 2 - 1
    tok.decoder.stage = "pixels"
    made = tok.decoder.training_pass(tok, x, 0)
    assert set(made.terms) == {"halt"}
    made.x_hat.sum().backward()
    assert tok.decoder.painter.codebook.grad is not None


def test_wrong_options_are_named():
    config = read_config("backbone", "tiny_karl")
    for change, text in (
        ({"decoder": {**config["decoder"], "stage": "both"}}, "karl stage: there is no 'both'"),
        ({"encoder": {**config["encoder"], "budget": 9}}, "KARLEncoder: expected a budget of 1..8"),
    ):
        with pytest.raises(ConfigError, match=text):
            Tokenizer.from_config({**config, **change, "quantizer": VQ})
