import math

import pytest
import torch
import vector_quantize_pytorch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.lfq import LFQ


def run(head, z):
    out = head(torch.tensor([z]))
    return out.z_q[0].tolist(), int(out.indices)


@pytest.mark.parametrize(
    ("z", "code", "index"),
    [
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], 500),
        ([0.2, -0.2, 0.7, -0.7], [0.25, 0, 0.5, -0.5], 341),
        ([3.0, -3.0, 3.0, -3.0], [0.75, -1, 1, -1], 167),
        ([-0.6, 0.4, 0.1, 1.2], [-0.5, 0.5, 0, 1], 906),
        ([0.3, -0.4, 0.1, 0.9], [0.25, -0.5, 0, 0.5], 693),
    ],
)
def test_golden_8555(z, code, index):
    assert run(FSQ(levels=(8, 5, 5, 5)), z) == (code, index)


def test_golden_354():
    assert run(FSQ(levels=(3, 5, 4)), [0.25, 0.6, -7.0]) == ([0, 0.5, -1], 10)


def test_golden_codes_of_indices():
    codes = FSQ(levels=(8, 5, 5, 5)).decode(torch.tensor([[0], [1], [8], [40], [999]]))
    close(
        codes,
        [
            [-1, -1, -1, -1],
            [-0.75, -1, -1, -1],
            [-1, -0.5, -1, -1],
            [-1, -1, -0.5, -1],
            [0.75, 1, 1, 1],
        ],
    )


def test_golden_gradient():
    z = torch.tensor([[0.3, -0.4, 0.1, 0.9]], requires_grad=True)
    FSQ(levels=(8, 5, 5, 5))(z).z_q.sum().backward()
    close(z.grad[0], [0.723787, 0.856494, 0.991056, 0.487404])


@pytest.mark.parametrize(
    ("levels", "z", "code", "index"),
    [
        ((8, 5), [0.0, 0.0], [0.142857, 0], 20),
        ((8, 5), [0.2, 0.2], [0.142857, 0], 20),
        ((8, 5), [-3.0, 3.0], [-1, 1], 32),
        ((2, 2, 2), [0.0, -0.1, 0.1], [1, -1, 1], 5),
        ((17, 5), [0.3, -0.4], [0.25, -0.5], 27),
        ((17, 5), [2.0, -2.0], [1, -1], 16),
        ((17, 5), [0.0, 0.0], [0, 0], 42),
    ],
)
def test_golden_symmetric(levels, z, code, index):
    got, where = run(FSQ(levels=levels, bound="symmetric"), z)
    assert got == pytest.approx(code, abs=1e-6)
    assert where == index


@pytest.mark.parametrize(
    ("level", "thresholds"),
    [
        (8, [-1.423, -0.7925, -0.4373, -0.1437, 0.1499, 0.5051, 1.1356]),
        (5, [-0.9713, -0.2552, 0.2552, 0.9713]),
    ],
)
def test_golden_thresholds(level, thresholds):
    head = FSQ(levels=(level,))
    for i, z in enumerate(thresholds):
        below, above = head.encode(torch.tensor([[z - 1e-3], [z + 1e-3]])).flatten().tolist()
        assert (below, above) == (i, i + 1)


@pytest.mark.parametrize("level", [3, 4, 1000, 1001, 1003, 1024, 1025, 2001, 4096])
@pytest.mark.parametrize("bound", ["tanh", "symmetric", "clamp"])
def test_both_ends_are_reached_and_never_passed(level, bound):
    head = FSQ(levels=(level,), bound=bound)
    z = torch.tensor([[-1e18], [1e18], [-30.0], [30.0]])
    assert head.encode(z).flatten().tolist() == [0, level - 1, 0, level - 1]


def test_all_codes_are_reachable_in_a_bfloat16_module():
    head = FSQ(levels=(8, 5, 5, 5)).bfloat16()
    axes = [torch.linspace(-3, 3, 200).bfloat16()] * 4
    pick = torch.randint(200, (200_000, 4))
    z = torch.stack([axis[pick[:, i]] for i, axis in enumerate(axes)], dim=1)
    assert head.encode(z).unique().numel() == 1000
    assert torch.equal(head.encode(z), FSQ(levels=(8, 5, 5, 5)).encode(z.float()))


def test_two_levels_are_lfq():
    z = torch.randn(50, 7)
    fsq, lfq = FSQ(levels=(2,) * 7, bound="symmetric"), LFQ(bits=7)
    assert torch.equal(fsq.encode(z), lfq.encode(z))
    assert torch.equal(fsq(z).z_q, lfq(z).z_q)


def test_values_agree_with_vector_quantize_pytorch():
    theirs = vector_quantize_pytorch.FSQ(levels=[8, 6, 5])
    z = torch.randn(2, 200, 3)
    quantized, index = theirs(z)
    ours = FSQ(levels=(8, 6, 5))(z)
    assert torch.equal(ours.indices[..., 0], index.long())
    torch.testing.assert_close(ours.z_q, quantized)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"levels": "abc"},
            "FSQ: expected levels, a list of whole numbers; got 'abc'. "
            "Give one per channel, as in [8, 5, 5].",
        ),
        (
            {"levels": 8},
            "FSQ: expected levels, a list of whole numbers; got 8. "
            "Give one per channel, as in [8, 5, 5].",
        ),
        (
            {"levels": [8, 2.5]},
            "FSQ: expected levels, a list of whole numbers; got [8, 2.5]. "
            "Give one per channel, as in [8, 5, 5].",
        ),
        ({"levels": ()}, "FSQ: levels must be at least 2 each; got ()."),
        ({"levels": (8, 1, 5)}, "FSQ: levels must be at least 2 each; got (8, 1, 5)."),
        (
            {"levels": (2, 3)},
            "FSQ: expected at least 3 levels with bound='tanh'; got (2, 3). Use bound='symmetric'.",
        ),
        (
            {"levels": (8,), "bound": "relu"},
            "FSQ bound: there is no 'relu'; choose one of clamp, inner, symmetric, tanh.",
        ),
        (
            {"levels": (8,) * 21},
            "FSQ: expected a product of sizes below 2**63; got 2**63.0. "
            "Keep one index per codebook instead of packing them.",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError) as error:
        FSQ(**options)
    assert str(error.value) == message


def test_the_inner_bound_needs_half_of_0_999():
    z = math.atanh(0.5 / 0.999)
    head = FSQ(levels=(3, 5), bound="inner")
    inside, outside = (head(torch.tensor([[z + d, 0.0]])) for d in (-1e-4, 1e-4))
    assert inside.z_q.tolist() == [[0.0, 0.0]]
    assert outside.z_q.tolist() == [[1.0, 0.0]]
    assert [int(out.indices) for out in (inside, outside)] == [7, 8]
    # 5 levels: 2 * 0.999 * tanh(0.6) = 1.07 rounds to 1, half of the way
    assert run(head, [-9.0, 0.6]) == ([-1.0, 0.5], 9)
    u = torch.tensor([[0.3, -0.4]], requires_grad=True)
    head(u).z_q.sum().backward()
    close(u.grad[0], [0.999 * (1 - math.tanh(v) ** 2) for v in (0.3, -0.4)])


def test_the_inner_bound_has_odd_levels():
    with pytest.raises(ConfigError) as error:
        FSQ(levels=(3, 4), bound="inner")
    assert str(error.value) == (
        "FSQ: expected odd levels with bound='inner'; got (3, 4). Use bound='tanh' or 'symmetric'."
    )
