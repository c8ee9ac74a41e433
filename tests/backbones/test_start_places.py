"""TiTok starts in place: each latent attends first to its own part of the picture."""

import torch
from torch.nn.functional import normalize

from tokenizers_vq.backbones.start_places import sines, start_in_place
from tokenizers_vq.backbones.transformer import Transformer

SIDE = 4


def started(count, width=32):
    transformer = Transformer(width, 2, 2)
    squares, latents = torch.zeros(SIDE**2, width), torch.zeros(count, width)
    start_in_place(transformer, squares, latents, SIDE)
    return transformer, squares, latents


def likeness(latents, squares):
    return normalize(latents, dim=-1) @ normalize(squares, dim=-1).T


def test_one_wave_by_hand():
    # a single frequency of half a wave over two points: angles pi / 4 and 3 pi / 4
    rows = sines(2, 1, 4)
    assert torch.allclose(rows[0], torch.tensor([[2.0, 2.0], [2.0, 2.0]]))  # sines of the row
    assert torch.allclose(rows[1], torch.tensor([[2.0, 2.0], [-2.0, -2.0]]))  # cosines of the row
    assert torch.allclose(rows[3], torch.tensor([[2.0, -2.0], [2.0, -2.0]]))  # of the column


def test_squares_are_most_like_themselves_then_their_neighbours():
    _, squares, _ = started(1)
    like = likeness(squares, squares)
    assert torch.equal(like.argmax(1), torch.arange(SIDE**2))
    # of the corner square 0: its neighbours 1 and 4 before all others
    assert set(like[0].topk(3).indices.tolist()) == {0, 1, SIDE}


def test_latents_go_from_the_whole_picture_to_single_squares():
    _, squares, latents = started(21)
    like = likeness(latents, squares)
    assert set(like[0].topk(4).indices.tolist()) == {5, 6, 9, 10}  # the middle
    quarters = {frozenset(row.topk(4).indices.tolist()) for row in like[1:5]}
    assert quarters == {
        frozenset(corner + step for step in (0, 1, SIDE, SIDE + 1)) for corner in (0, 2, 8, 10)
    }
    assert sorted(like[5:].argmax(1).tolist()) == list(range(SIDE**2))


def test_latents_beyond_the_squares_go_round_again():
    _, squares, latents = started(21 + 16)
    assert sorted(likeness(latents[21:], squares).argmax(1).tolist()) == list(range(SIDE**2))


def test_both_sides_give_a_latent_the_same_place():
    torch.manual_seed(1)
    _, squares, latents = started(30, width=32)
    torch.manual_seed(2)
    _, others, more = started(30, width=64)
    assert torch.equal(
        likeness(latents[5:], squares).argmax(1), likeness(more[5:], others).argmax(1)
    )


def test_keys_start_as_queries():
    transformer, _, _ = started(3)
    for block in transformer.blocks:
        q, k, v = block.attn.qkv.weight.chunk(3)
        assert torch.equal(q, k)
        assert not torch.equal(q, v)


def test_widths_that_are_no_multiple_of_four_stay_as_they_are():
    _, squares, latents = started(3, width=6)
    assert not squares.any()
    assert not latents.any()
