import math

import torch

from tokenizers_vq.functional import rotations


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=1e-6, atol=1e-7)


def random_rotations(count):
    six = torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return rotations.from_six(six)


def test_six_numbers_by_hand():
    # along y; then z with a part along y taken away; the third is y x z = x
    found = rotations.from_six(torch.tensor([0.0, 2, 0, 0, 5, 3]))
    close(found, [[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    close(rotations.to_six(found), [0.0, 1, 0, 0, 0, 1])


def test_matrices_are_rotations_and_come_back():
    found = random_rotations(20)
    close(found @ found.mT, torch.eye(3).expand(20, 3, 3))
    close(torch.linalg.det(found), torch.ones(20))
    close(rotations.from_six(rotations.to_six(found)), found)


def test_the_shortest_arc_turns_by_the_angle_between_and_no_more():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    found = rotations.shortest_arc(a, 7 * b)
    to = rotations.turned(found, a) / a.norm(dim=-1, keepdim=True)
    close(to, b / b.norm(dim=-1, keepdim=True))
    angle = torch.acos((a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1))
    trace = found.diagonal(dim1=-2, dim2=-1).sum(-1)  # 1 + 2 cos
    close(trace, 1 + 2 * angle.cos())


def test_a_direction_without_length_turns_nothing():
    close(rotations.shortest_arc(torch.zeros(3), torch.ones(3)), torch.eye(3))
    close(rotations.shortest_arc(torch.ones(3), torch.zeros(3)), torch.eye(3))
    assert rotations.shortest_arc(torch.ones(3), -torch.ones(3)).isfinite().all()


def test_a_quarter_turn_about_the_vertical_takes_z_to_x():
    found = rotations.about_vertical(torch.tensor(math.pi / 2))
    close(rotations.turned(found, torch.tensor([0.0, 2, 1])), [1.0, 2, 0])


def test_gradients_are_finite_where_vectors_vanish():
    six = torch.zeros(2, 6, requires_grad=True)
    rotations.from_six(six).sum().backward()
    assert six.grad.isfinite().all()
