"""ALIT: sizes of the paper, and how it trains."""

import pytest
import torch

from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer

VQ = {"name": "vq", "codebook_size": 4096, "metric": "cosine"}


def parameters(backbone, quantizer):
    """How many parameters a tokenizer has, without any memory for them."""
    with torch.device("meta"):
        tok = Tokenizer.from_config({**read_config("backbone", backbone), "quantizer": quantizer})
    return tok, sum(p.numel() for p in tok.parameters())


def test_the_small_model_has_the_published_size():
    tok, count = parameters("alit_small", VQ)
    assert round(count / 1e6, 2) == 262.05
    assert tok.encoder.counts == (32, 64, 96, 128, 160, 192, 224, 256)
    assert tok.encoder.size == (256, 256)


def tiny():
    config = tokenizer_config("tiny_alit", "vq_cosine")
    config["quantizer"] = {"name": "vq", "codebook_size": 64, "metric": "cosine"}
    return Tokenizer.from_config(config).train()


def test_a_training_step_sums_all_rollouts_and_leaves_the_base_alone():
    tok, x = tiny(), torch.rand(2, 3, 32, 32) * 2 - 1
    made = tok.decoder.training_pass(tok, x, 0)
    assert set(made.terms) == {"nll", "code"}
    assert made.z.shape == (2, 4 + 8, 8)
    assert made.quantized.indices.shape == (2, 12, 1)
    # an untrained model: log 16 for each of the rollouts, weighted 2.5 and 2
    assert made.terms["nll"].item() == pytest.approx(4.5 * 2.7726, rel=0.02)
    (sum(made.terms.values()) + made.quantized.loss).backward()
    learns = {name for name, p in tok.named_parameters() if p.grad is not None}
    assert not any(".base." in name or "painter.codebook" in name for name in learns)
    assert {"encoder.image.patch.weight", "decoder.painter.head.2.weight"} <= learns


def test_described_positions_are_left_out_of_later_rollouts():
    tok, x = tiny(), torch.rand(2, 3, 32, 32) * 2 - 1
    seen = torch.ones(2, 16, dtype=torch.bool)
    plain = tok.encoder.roll(x, 2)
    blind = tok.encoder.roll(x, 2, lambda i, z: seen)
    assert not torch.allclose(plain, blind)
    assert torch.equal(tok.encoder.roll(x, 2, lambda i, z: ~seen), plain)


def test_the_second_stage_decodes_one_rollout_after_the_other():
    tok, x = tiny(), torch.rand(1, 3, 32, 32) * 2 - 1
    tok.decoder.stage = "pixels"
    for step, count in ((0, 4), (1, 8), (2, 4)):
        made = tok.decoder.training_pass(tok, x, step)
        assert made.x_hat.shape == x.shape
        assert made.z.shape[1] == count


def test_wrong_options_are_named():
    config = read_config("backbone", "tiny_alit")
    for change, text in (
        ({"decoder": {**config["decoder"], "stage": "both"}}, "alit stage: there is no 'both'"),
        ({"encoder": {**config["encoder"], "size": 33}}, "ALITEncoder: expected a size in"),
        ({"encoder": {**config["encoder"], "width": 8}}, "ImageRows: expected a width above 8"),
    ):
        with pytest.raises(ConfigError, match=text):
            Tokenizer.from_config({**config, **change, "quantizer": VQ})
