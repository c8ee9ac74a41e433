import math

import numpy as np
import pytest
import torch

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.metrics.codebook import Codebook, expected_usage


def skewed(n: int, size: int, seed: int = 0) -> torch.Tensor:
    p = torch.linspace(1, 0.01, size) ** 3
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(p, n, replacement=True, generator=generator)


def test_scores_equal_a_numpy_count():
    sizes = (32, 8)
    indices = torch.stack([skewed(640, 32), skewed(640, 8, 1)], -1).reshape(10, 8, 8, 2)
    metric = Codebook()
    for batch in indices.split(3):
        metric.add(batch, sizes)
    scores = metric.compute()
    entropies = []
    for k, size in enumerate(sizes):
        counts = np.bincount(indices[..., k].flatten().numpy(), minlength=size)
        p = counts[counts > 0] / counts.sum()
        entropies.append(-(p * np.log2(p)).sum())
        assert scores["usage"].detail["per_codebook"][k] == (counts > 0).sum() / size
        assert scores["dead_codes"].detail["per_codebook"][k] == (counts == 0).sum()
        assert scores["perplexity"].detail["per_codebook"][k] == pytest.approx(2 ** entropies[k])
    joint = np.unique(indices.reshape(-1, 2).numpy(), axis=0, return_counts=True)[1] / 640
    assert scores["entropy_bits"].value == pytest.approx(sum(entropies))
    assert scores["joint_bits"].value == pytest.approx(-(joint * np.log2(joint)).sum())
    assert scores["usage"].n == scores["usage"].detail["tokens"] == 640
    assert scores["entropy_bits"].detail["nominal_bits"] == pytest.approx(math.log2(32 * 8))


def test_expected_usage_is_the_mean_over_random_subsets():
    tokens = skewed(2000, 64)
    counts = torch.bincount(tokens, minlength=64)
    rng = np.random.default_rng(0)
    draws = [len(np.unique(rng.choice(tokens.numpy(), 128, replace=False))) for _ in range(400)]
    assert expected_usage(counts[counts > 0], 64, 128) == pytest.approx(
        np.mean(draws) / 64, rel=0.02
    )
    assert expected_usage(counts, 64, 2000) == pytest.approx((counts > 0).float().mean())
    assert expected_usage(counts, 64, 2001) is None


def test_usage_curve_grows_with_tokens_and_ends_where_tokens_end():
    metric = Codebook(usage_at=(16, 256, 4096))
    metric.add(skewed(1000, 128).reshape(1, 1000, 1), (128,))
    curve = metric.compute()["usage"].detail["at_tokens"]
    assert curve["16"] < curve["256"] < metric.compute()["usage"].value
    assert curve["4096"] is None


def test_one_constant_code_and_a_huge_codebook():
    metric = Codebook()
    metric.add(torch.full((2, 3, 3, 1), 2**36 - 1), (2**36,))
    scores = metric.compute()
    assert scores["perplexity"].value == 1.0
    assert scores["entropy_bits"].value == 0.0
    assert scores["dead_codes"].value == 2**36 - 1


def test_masked_positions_do_not_count():
    indices = torch.zeros(1, 4, 1, dtype=torch.int64)
    indices[0, 2:] = -1
    metric = Codebook()
    metric.add(indices, (4,))
    assert metric.compute()["usage"].detail["tokens"] == 2


def test_another_tokenizers_codes_are_refused():
    metric = Codebook()
    metric.add(torch.zeros(1, 4, 1, dtype=torch.int64), (4,))
    with pytest.raises(ShapeError) as error:
        metric.add(torch.zeros(1, 4, 1, dtype=torch.int64), (8,))
    assert str(error.value) == (
        "codebook metric: expected codebooks of (4,); got (8,). Reset before another tokenizer."
    )
