import pytest
import torch
from golden import close, with_codes
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.shared_index import SharedIndex
from tokenizers_vq.quantizers.vq import VectorQuantizer

CODES = [[1.0, 0, 0, 1], [0, 1, 1, 0], [-1, 0, 0, -1]]
Z = torch.tensor([[[2.0, 0.5, 0.3, 0.1], [0.1, 1.0, -0.2, -1.0]]])


def shared(**options):
    head = SharedIndex(codebook_size=3, parts=(2, 2), **options)
    return with_codes(head, CODES)


def unit(x, parts=(2, 2)):
    return torch.cat([F.normalize(part, dim=-1) for part in x.split(parts, dim=-1)], dim=-1)


def test_golden():
    head = shared()
    out = head(Z)
    assert out.indices.flatten().tolist() == [0, 2]
    close(out.z_q[0], [CODES[0], CODES[2]])
    sums = (unit(Z[0])[:, None] - head.codes()).square().sum(-1)
    close(sums, [[1.4273, 1.6176, 6.5727], [5.7622, 2.4022, 2.2378]], atol=1e-4)
    close(out.terms["distance/0"] + out.terms["distance/1"], (1.4273 + 2.2378) / 2, atol=1e-4)


def test_each_part_alone_would_choose_another_index():
    def best(weights):
        return shared(weights=weights).encode(Z).flatten().tolist()

    assert best([1, 1e-6]) == [0, 1]
    assert best([1e-6, 1]) == [1, 2]


def test_it_is_a_vector_quantizer_on_concatenated_unit_vectors():
    torch.manual_seed(0)
    head = SharedIndex(codebook_size=32, parts=(3, 2, 1), restart_threshold=0.0)
    plain = VectorQuantizer(6, codebook_size=32, restart_threshold=0.0)
    plain.codebook.data.copy_(head.codes())
    z = torch.randn(4, 10, 6)
    a, b = head(z), plain(unit(z, (3, 2, 1)))
    assert torch.equal(a.indices, b.indices)
    torch.testing.assert_close(a.z_q, b.z_q)
    torch.testing.assert_close(a.loss, b.loss)
    assert torch.equal(head.candidates(z[0], 5), plain.candidates(unit(z[0], (3, 2, 1)), 5))


def test_weights_multiply_the_distances():
    torch.manual_seed(0)
    weights = torch.tensor([0.3, 2.0])
    head = SharedIndex(codebook_size=32, parts=(4, 2), weights=weights.tolist())
    z = torch.randn(50, 6)
    squares = (unit(z, (4, 2))[:, None] - head.codes()).square()
    parts = torch.stack([part.sum(-1) for part in squares.split((4, 2), dim=-1)], dim=-1)
    assert torch.equal(head.encode(z)[:, 0], (parts * weights).sum(-1).argmin(1))
    means = parts[torch.arange(50), head.encode(z)[:, 0]].mean(0)
    terms = head(z).terms
    close(torch.stack([terms["distance/0"], terms["distance/1"]]), means)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_kmeans_starts_at_centroids_of_unit_vectors_whatever_the_weights(update):
    torch.manual_seed(0)
    centres = torch.tensor(CODES)
    z = centres[torch.arange(60) % 3] * 5 + 0.01 * torch.randn(60, 4)
    head = SharedIndex(
        codebook_size=3,
        parts=(2, 2),
        weights=(4.0, 0.25),
        codebook_update=update,
        kmeans_init="plusplus",
    )
    head.update(z, head(z).indices)
    assert torch.cdist(head.codes(), centres).min(0).values.max() < 0.02
    assert torch.cdist(head.codebook.detach(), centres).min(0).values.max() < 0.02
    before = head.codes().clone()
    head.update(z, head(z).indices)
    torch.testing.assert_close(head.codes(), before, atol=1e-3, rtol=0)


def test_a_code_that_follows_averages_keeps_unit_parts():
    head = shared(codebook_update="ema", decay=0.5, restart_threshold=0.0)
    before = head.codes().clone()
    head.update(Z, head(Z).indices)
    close(head.codes().split(2, dim=-1)[0].norm(dim=-1), [1, 1, 1])
    assert torch.equal(head.codes()[1], before[1])
    assert not torch.equal(head.codes()[0], before[0])


@pytest.mark.parametrize("parts", [[], 4, [0, 2], [2.5]])
def test_parts_are_widths(parts):
    with pytest.raises(ConfigError) as error:
        SharedIndex(codebook_size=3, parts=parts)
    assert str(error.value) == (
        f"SharedIndex: expected parts, a list of widths of at least 1; got {parts!r}. "
        "Give one per codebook, as in [32, 8]."
    )


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], 2.0, ["a", "b"]])
def test_weights_are_one_positive_number_per_part(weights):
    with pytest.raises(ConfigError) as error:
        SharedIndex(codebook_size=3, parts=(2, 2), weights=weights)
    assert str(error.value) == (
        f"SharedIndex: expected 2 weights above 0; got {weights!r}. Give one per part."
    )
