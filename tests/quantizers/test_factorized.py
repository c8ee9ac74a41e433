import torch
from golden import X, close, with_codes

from tokenizers_vq.quantizers.factorized import FactorizedVQ
from tokenizers_vq.quantizers.vq import VectorQuantizer

CODES = [[1.0, 0.0], [0.5, 0.5], [0.0, 3.0], [-1.0, 0.0]]


def test_golden_direction_search_with_codes_at_their_own_length():
    head = with_codes(FactorizedVQ(codebook_size=4, code_dim=2), CODES)
    out = head(X)
    assert out.indices.flatten().tolist() == [1, 0, 1, 2, 0]
    assert torch.equal(out.z_q[0], torch.tensor(CODES)[[1, 0, 1, 2, 0]])
    close(out.terms["commitment"], 0.772)
    close(out.terms["codebook"], 0.772)
    close(out.loss, 1.25 * 0.772)


def test_the_euclidean_neighbour_is_another():
    head = with_codes(VectorQuantizer(2, codebook_size=4), CODES)
    assert head.encode(X).flatten().tolist() == [1, 0, 1, 1, 0]


def test_it_searches_in_few_dimensions():
    head = FactorizedVQ(64, codebook_size=16)
    assert (head.dim, head.code_dim) == (64, 8)
    assert head.project_in.weight.shape == (8, 64)
