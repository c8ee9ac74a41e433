import torch

from tokenizers_vq.functional.nearest import nearest_code
from tokenizers_vq.ops import nearest_code as dispatched


def brute_force(x, codebook):
    distance = (x.double()[:, None] - codebook.double()[None]).square().sum(-1)
    return distance.min(1)


def test_no_other_code_is_nearer():
    x, codebook = torch.randn(300, 6), torch.randn(97, 6)
    distance, index = nearest_code(x, codebook)
    best, where = brute_force(x, codebook)
    assert torch.equal(index, where)
    torch.testing.assert_close(distance.double(), best, atol=1e-5, rtol=1e-5)


def test_a_tiny_codebook_far_from_zero_latents_keeps_its_digits():
    codebook = (torch.rand(512, 16) * 2 - 1) / 512
    x = torch.randn(200, 16)
    chosen = nearest_code(x, codebook)[1]
    best, _ = brute_force(x, codebook)
    reached = (x.double() - codebook.double()[chosen]).square().sum(-1)
    assert bool((reached <= best + 1e-6).all())


def test_chunks_do_not_change_the_answer():
    x, codebook = torch.randn(100, 5), torch.randn(33, 5)
    whole = nearest_code(x, codebook)
    for chunk in (1, 40, 33 * 7, 10**6):
        part = nearest_code(x, codebook, chunk=chunk)
        assert torch.equal(part[1], whole[1])


def test_equal_distances_give_the_lowest_index():
    codebook = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert nearest_code(torch.tensor([[0.0], [2.0], [-2.0]]), codebook)[1].tolist() == [0, 0, 1]


def test_no_rows():
    distance, index = nearest_code(torch.zeros(0, 3), torch.randn(4, 3))
    assert distance.shape == index.shape == (0,)
    assert index.dtype == torch.int64


def test_a_code_that_is_not_finite_is_never_chosen():
    codebook = torch.tensor([[float("nan")] * 2, [float("inf"), 0.0], [5.0, 5.0]])
    assert nearest_code(torch.randn(10, 2), codebook)[1].tolist() == [2] * 10


def test_rows_that_are_not_finite_get_an_index_in_range_and_disturb_nobody():
    x, codebook = torch.randn(6, 3), torch.randn(9, 3)
    clean = nearest_code(x, codebook)[1]
    x[2], x[4] = float("nan"), float("inf")
    index = nearest_code(x, codebook)[1]
    assert bool(((index >= 0) & (index < 9)).all())
    rest = [0, 1, 3, 5]
    assert torch.equal(index[rest], clean[rest])


def test_half_precision_and_autocast_are_searched_in_float32():
    x, codebook = torch.randn(200, 8).bfloat16(), torch.randn(64, 8)
    expected = nearest_code(x.float(), codebook)[1]
    assert torch.equal(nearest_code(x, codebook)[1], expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_code(x, codebook)[1], expected)


def test_a_graph_with_blocks_of_codes_gives_the_same_answer():
    torch._dynamo.reset()
    x, codebook = torch.randn(20, 3), torch.randn(9000, 3)
    codebook[8999] = codebook[0]  # a tie over blocks
    x[0] = codebook[0]
    compiled = torch.compile(dispatched, fullgraph=True, backend="eager", dynamic=True)
    for rows in (20, 7):
        assert torch.equal(compiled(x[:rows], codebook)[1], dispatched(x[:rows], codebook)[1])
