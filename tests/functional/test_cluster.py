from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.cluster import cluster_codebook


def error_of(codes, level, weights):
    return float((weights * (codes - level.centroids[level.table]).square().sum(-1)).sum())


def test_blobs_become_their_weighted_means():
    codes = torch.tensor([[0.0], [0.4], [10.0], [11.0], [20.0]])
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0, 5.0])
    (level,) = cluster_codebook(codes, [3], weights)
    order = level.centroids[:, 0].argsort()
    torch.testing.assert_close(
        level.centroids[order, 0], torch.tensor([0.1, 10.5, 20.0]), atol=2e-3, rtol=0
    )
    assert level.weights[order].tolist() == [4, 2, 5]
    assert level.table[0] == level.table[1] == order[0]


def test_smaller_codebooks_are_nested_and_their_error_grows():
    codes, weights = torch.randn(256, 4), torch.rand(256)
    weights[::7] = 0
    levels = cluster_codebook(codes, [64, 16, 4, 1], weights)
    errors = [error_of(codes, level, weights) for level in levels]
    assert errors == sorted(errors)
    assert errors[0] < 0.3 * errors[-1]
    for fine, coarse in pairwise(levels):
        step = torch.full((len(fine.centroids),), -1)
        step[fine.table] = coarse.table
        assert (step >= 0).all()  # every cluster has codes
        assert torch.equal(step[fine.table], coarse.table)
        torch.testing.assert_close(fine.weights.sum(), weights.sum())


def test_weights_pull_the_codebook_to_where_it_is_used():
    codes = torch.rand(512, 2)
    used = (codes[:, 0] < 0.3).float()
    plain = cluster_codebook(codes, [16])[0]
    weighted = cluster_codebook(codes, [16], used)[0]
    assert error_of(codes, weighted, used) < 0.5 * error_of(codes, plain, used)


def test_cosine_centroids_have_unit_length():
    codes = 5 * torch.randn(64, 8)
    (level,) = cluster_codebook(codes, [8], cosine=True)
    torch.testing.assert_close(level.centroids.norm(dim=-1), torch.ones(8))
    mine = (F.normalize(codes, dim=-1) * level.centroids[level.table]).sum(-1)
    assert mine.mean() > 0.5


def test_equal_codes_still_fill_every_cluster():
    (level,) = cluster_codebook(torch.zeros(8, 2), [3])
    assert torch.bincount(level.table, minlength=3).min() >= 1


@pytest.mark.parametrize("sizes", [[], [8], [4, 4], [2, 4], [4, 0]])
def test_sizes_have_to_fall(sizes):
    with pytest.raises(ConfigError) as error:
        cluster_codebook(torch.randn(8, 2), sizes)
    assert str(error.value) == (
        f"cluster_codebook: expected sizes that fall from 7 to 1; got {sizes}. "
        "Order them, largest first."
    )


def test_weights_are_one_per_code():
    with pytest.raises(ConfigError) as error:
        cluster_codebook(torch.randn(8, 2), [4], torch.ones(3))
    assert str(error.value) == (
        "cluster_codebook: expected 8 weights of at least 0; got (3,). Give one per code."
    )
