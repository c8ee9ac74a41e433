"""Statistics of the training set, of nothing else, once."""

import pytest
import torch

import tokenizers_vq
from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.training.run import compose, run
from tokenizers_vq.training.statistics import FitStatistics, channel_statistics

WORDS = ("experiment=tiny_t2m_gpt", "trainer.max_steps=2", "~logger.tensorboard")


def test_statistics_are_those_of_all_samples():
    data = SyntheticMotion(n=3, frames=8)
    mean, std = channel_statistics(data, 2)
    every = torch.cat([x.double() for x in data], dim=1)
    torch.testing.assert_close(mean, every.mean(1))
    torch.testing.assert_close(std, every.std(1, correction=0), atol=1e-7, rtol=1e-6)


def test_a_run_fits_both_sides_to_its_training_set_once(tmp_path):
    result = run(compose([*WORDS, f"outputs={tmp_path}"]))
    tok = tokenizers_vq.load(result.folder / "tokenizer")
    mean, _ = channel_statistics(SyntheticMotion(n=8, frames=16, seed=0))
    for part in (tok.encoder, tok.decoder):
        torch.testing.assert_close(part.standardize.mean, mean.float())
        assert part.standardize.fitted
        assert part.standardize.std[4] == part.standardize.std[66]
    words = ["trainer.max_steps=3", "data.train.seed=5", f"resume={result.folder}"]
    again = run(compose([*WORDS, *words, f"outputs={tmp_path}"])).tokenizer
    assert torch.equal(again.encoder.standardize.mean, tok.encoder.standardize.mean)


def test_no_item_is_an_error():
    with pytest.raises(ConfigError, match="expected 1 item or more; got items=0"):
        FitStatistics(0)
