import math

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional import lattices
from tokenizers_vq.ops import nearest_code
from tokenizers_vq.quantizers.lattice import Lattice
from tokenizers_vq.quantizers.record import without_records

# Inner products of a minimal vector with all of them, as shares of its squared length.
NEIGHBOURS = {
    "d4": {1: 1, 0.5: 8, 0: 6, -0.5: 8, -1: 1},
    "e8": {1: 1, 0.5: 56, 0: 126, -0.5: 56, -1: 1},
    "leech": {1: 1, 0.5: 4600, 0.25: 47104, 0: 93150, -0.25: 47104, -0.5: 4600, -1: 1},
}


def leech_in_integers():
    return (lattices.leech() * 32**0.5).round().long()


def test_the_golay_code_has_its_weights():
    words = lattices.golay_code()
    weights = lattices.bits(words, 24).sum(1).bincount().tolist()
    assert {w: n for w, n in enumerate(weights) if n} == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}
    assert torch.equal(words & 4095, torch.arange(4096))
    picks = torch.randint(4096, (2, 1000))
    assert bool(torch.isin(words[picks[0]] ^ words[picks[1]], words).all())


def test_every_five_positions_are_in_one_octad():
    positions = lattices.octads(lattices.golay_code())
    assert positions.shape == (759, 8)
    inside = torch.zeros(759, 24).scatter_(1, positions, 1.0)
    for _ in range(20):
        five = torch.randperm(24)[:5]
        assert int((inside[:, five].sum(1) == 5).sum()) == 1


def test_the_leech_lattice_has_its_three_families():
    vectors = leech_in_integers()
    assert float((vectors / 32**0.5 - lattices.leech()).abs().max()) < 1e-6
    assert bool((vectors.square().sum(1) == 32).all())
    largest = vectors.abs().amax(1)
    assert largest.bincount().tolist() == [0, 0, 97_152, 98_304, 1_104]
    assert bool((largest.diff() != 0).sum() == 2)
    assert (
        torch.unique(vectors.double() @ torch.linspace(1, 2, 24).double().exp()).shape[0] == 196_560
    )


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_every_code_has_the_neighbours_of_a_minimal_vector(name):
    codes = Lattice(lattice=name)._codes
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(len(codes)))
    some = codes[:: max(1, len(codes) // 7)]
    products, counts = torch.unique((4 * some @ codes.T).round(decimals=4), return_counts=True)
    total = {float(p) / 4: int(n) / len(some) for p, n in zip(products, counts, strict=True)}
    assert total == NEIGHBOURS[name]


def test_the_fast_search_is_exact():
    torch.manual_seed(0)
    head = Lattice().eval()
    u = torch.cat([torch.randn(300, 24), torch.randn(150, 24) ** 3, torch.rand(50, 24)])
    u = torch.nn.functional.normalize(u, dim=1)
    assert torch.equal(head.encode(u)[:, 0], nearest_code(u, head._codes)[1])
    assert torch.equal(head.candidates(u[:20], 3)[:, 0], head.encode(u[:20]))


def test_every_code_is_its_own_nearest():
    head = Lattice().eval()
    for indices in torch.arange(196_560)[::37][:, None].split(8192):
        codes = head.lookup(indices)
        assert torch.equal(head.encode(codes + 0.05 * torch.randn_like(codes) / 24**0.5), indices)


def test_the_documented_order():
    vectors = leech_in_integers()
    assert vectors[0].tolist() == [4, 4] + [0] * 22
    assert vectors[5].tolist() == [-4, 0, 4] + [0] * 21
    assert vectors[1103].tolist() == [0] * 22 + [-4, -4]
    positions = lattices.octads(lattices.golay_code())
    octad = vectors[1104 + 128 * 5 + 1]
    assert octad.nonzero()[:, 0].tolist() == positions[5].tolist()
    assert octad[positions[5]].tolist() == [-2, 2, 2, 2, 2, 2, 2, -2]
    assert vectors[98_256 + 7].tolist() == [1] * 7 + [-3] + [1] * 16
    assert vectors[-1].tolist() == [-1] * 23 + [3]


def test_only_the_direction_counts_and_nothing_is_saved():
    head = Lattice(lattice="e8")
    z = torch.randn(50, 8)
    assert torch.equal(head.encode(z), head.encode(3 * z))
    assert not without_records(head.state_dict())
    assert not list(head.parameters())
    assert Lattice().bits_per_position == pytest.approx(math.log2(196_560))


def test_an_unknown_lattice_is_named():
    with pytest.raises(ConfigError) as error:
        Lattice(lattice="e7")
    assert str(error.value) == "Lattice: there is no 'e7'; choose one of d4, e8, leech."
