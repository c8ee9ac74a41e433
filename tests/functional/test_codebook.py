import pytest
import torch

from tokenizers_vq.functional.codebook import ema_step, kmeans, restart_dead
from tokenizers_vq.ops import code_stats

C4 = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
X = torch.tensor([[0.2, 0.1], [0.9, 0.3], [1.4, 1.6], [0.1, 0.7], [0.8, -0.1]])
INDEX = torch.tensor([0, 1, 3, 2, 1])


def generator():
    return torch.Generator().manual_seed(0)


def test_ema_golden():
    n, m, codes = ema_step((torch.ones(4), C4), code_stats(X, INDEX, 4), decay=0.9)
    torch.testing.assert_close(n, torch.tensor([1, 1.1, 1, 1]))
    expected = torch.tensor([[0.02, 0.01], [1.07, 0.02], [0.01, 0.97], [1.94, 1.96]])
    torch.testing.assert_close(m, expected)
    expected = torch.tensor([[0.02, 0.01], [0.972728, 0.018182], [0.01, 0.97], [1.939999, 1.96]])
    torch.testing.assert_close(codes, expected, atol=1e-5, rtol=0)


def test_smoothing_golden():
    n = torch.tensor([0.0, 1.0, 3.0, 0.0])
    m = torch.ones(4, 1)
    codes = ema_step((n, m), (n, m), decay=0.5)[2]
    smoothed = torch.tensor([1e-5, 1.0, 2.99997997, 1e-5])
    torch.testing.assert_close(1 / codes[:, 0], smoothed, atol=1e-5, rtol=1e-4)


def test_decay_zero_gives_the_batch_mean():
    codes = ema_step((torch.ones(4), C4), code_stats(X, INDEX, 4), decay=0.0)[2]
    torch.testing.assert_close(codes[1], (X[1] + X[4]) / 2, atol=1e-4, rtol=0)


def test_codes_that_nobody_chooses_keep_their_place():
    n, m = torch.ones(4), C4
    empty = (torch.zeros(4), torch.zeros(4, 2))
    for _ in range(50):
        n, m, codes = ema_step((n, m), empty, decay=0.99)
    torch.testing.assert_close(codes, C4, atol=1e-3, rtol=0)


def test_kmeans_finds_separated_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    x = (centres[:, None] + 0.1 * torch.randn(4, 50, 2)).reshape(-1, 2)
    codes, counts = kmeans(x, 4, seeding="plusplus", generator=generator(), iterations=20)
    assert float(torch.cdist(centres, codes).min(1).values.max()) < 0.2
    assert counts.sum() == 200


def test_kmeans_with_fewer_rows_than_codes_keeps_all_rows():
    x = torch.randn(3, 2)
    for seeding in ("random", "plusplus"):
        codes, counts = kmeans(x, 8, seeding=seeding, generator=generator())
        assert bool(torch.isfinite(codes).all())
        assert counts.sum() == 3
        assert float(torch.cdist(x, codes).min(1).values.max()) < 0.02
        assert codes.unique(dim=0).shape[0] == 8  # equal ones would never part


def test_kmeans_splits_large_clusters_when_some_run_empty():
    x = torch.randn(100, 2)
    same = torch.cat([torch.zeros(30, 2), torch.ones(1, 2)])  # nearly all centres start at 0
    counts = kmeans(x, 6, candidates=same, generator=generator(), iterations=10)[1]
    assert int((counts > 0).sum()) == 6


def test_cosine_kmeans_gives_unit_vectors():
    codes, _ = kmeans(torch.randn(60, 3), 5, cosine=True, generator=generator())
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(5))


def test_kmeans_repeats_itself_with_the_same_numbers():
    x = torch.randn(80, 4)
    runs = [kmeans(x, 9, seeding="plusplus", generator=generator())[0] for _ in range(2)]
    assert torch.equal(*runs)


def test_restart_puts_dead_codes_on_different_candidates():
    n = torch.tensor([1.5, 2.0, 0.01, 0.02])
    codes, fresh = restart_dead(C4, n, X, 0.1, generator())
    assert torch.equal(codes[:2], C4[:2])
    distances, rows = torch.cdist(codes[2:], X).min(1)
    assert float(distances.max()) < 0.01
    assert len(set(rows.tolist())) == 2
    assert fresh.tolist() == pytest.approx([1.5, 2.0, 0.8825, 0.8825])


def test_restart_makes_different_codes_of_equal_candidates():
    n = torch.tensor([9.0, 0.0, 0.0, 0.0])
    for scale in (1e-3, 1.0, 1e3):
        same = scale * torch.ones(8, 2)
        codes, _ = restart_dead(scale * C4, n, same, 0.5, generator())
        assert codes[1:].unique(dim=0).shape == (3, 2)
        torch.testing.assert_close(codes[1:], same[1:4], atol=0, rtol=0.01)
        assert torch.equal(codes, restart_dead(scale * C4, n, same, 0.5, generator())[0])


def test_restart_takes_the_deadest_first_when_candidates_run_out():
    n = torch.tensor([9.0, 0.2, 0.1, 0.3])
    codes, _ = restart_dead(C4, n, X[:1], 0.5, generator())
    torch.testing.assert_close(codes[2], X[0], atol=0.01, rtol=0)
    assert torch.equal(codes[[0, 1, 3]], C4[[0, 1, 3]])


def test_restart_means_the_same_at_every_batch_size():
    n = torch.tensor([5.0, 0.3, 4.0, 0.01])
    for scale in (1e-3, 1.0, 1e3):
        codes, _ = restart_dead(C4, scale * n, X, 0.03, generator())
        assert (codes != C4).any(1).tolist() == [False, False, False, True]


def test_restart_without_candidates_or_threshold_does_nothing():
    n = torch.tensor([5.0, 0.0, 0.0, 0.0])
    assert torch.equal(restart_dead(C4, n, X[:0], 0.5, generator())[0], C4)
    assert torch.equal(restart_dead(C4, n, X, 0.0, generator())[0], C4)


def test_rows_searched_in_pieces_give_the_same_clusters():
    x, pieces = torch.randn(200, 5), []

    def parts(rows):
        pieces.extend(rows.split(60))
        return pieces[-4:]

    whole = kmeans(x, 9, iterations=3, generator=torch.Generator().manual_seed(0))
    split = kmeans(x, 9, iterations=3, generator=torch.Generator().manual_seed(0), parts=parts)
    assert len(pieces) == 16  # three iterations and the last counts
    assert all(torch.equal(a, b) for a, b in zip(whole, split, strict=True))
