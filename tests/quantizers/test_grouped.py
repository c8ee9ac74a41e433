import pytest
import torch
from golden import close, with_codes

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.bsq import BSQ
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer

X = torch.tensor(
    [[0.003, -0.002, 0.004, 0.001], [-0.001, 0.004, 0.002, 0.003], [0.002, 0.002, -0.003, -0.001]]
)


def test_golden_group_lfq():
    out = Grouped(groups=[LFQ(bits=2), LFQ(bits=2)])(X)
    assert out.indices.tolist() == [[1, 3], [2, 3], [3, 0]]
    close(out.terms["entropy_sample"], 1.170934)
    close(out.terms["entropy_batch"], 1.336723)


def pooled(**options):
    inner = {"entropy_weight": 0.0, "commitment_weight": 0.0, **options}
    return Grouped(groups=[LFQ(bits=2, **inner) for _ in range(2)], pooled_entropy_weight=0.5)


def test_golden_entropy_pooled_over_the_groups():
    out = pooled()(X)
    close(out.terms["entropy_sample"], 1.170934)
    entropy = 1.345079  # the authors' guard makes it 1.345039: ln(p + 1e-5) instead of ln p
    close(out.terms["entropy_batch"], entropy)
    close(out.terms["entropy_batch"] - 4e-5, 1.345039)
    close(out.loss, 0.5 * (1.170934 - entropy))
    close(pooled(diversity_weight=2.0)(X).loss, 0.5 * (1.170934 - 2 * entropy))
    mean = torch.stack([LFQ(bits=2)(part).terms["entropy_batch"] for part in X.split(2, 1)]).mean()
    assert float(out.terms["entropy_batch"]) >= float(mean)


def test_the_pooled_entropy_is_that_of_the_mean_assignment():
    head = Grouped(groups=[BSQ(bits=3, entropy_weight=0.0) for _ in range(4)])
    head.pooled_entropy_weight = 1.0
    z = torch.randn(2, 5, 12, requires_grad=True)
    units = torch.nn.functional.normalize(z.reshape(-1, 4, 3), dim=-1).reshape(-1, 3)
    codes = head.groups[0].decode(torch.arange(8)[:, None])
    p = torch.softmax(2 * units @ codes.T, dim=1)
    sample, mean = torch.special.entr(p).sum(1).mean(), p.mean(0)
    expected = sample - torch.special.entr(mean).sum()
    out = head(z)
    close(out.loss, expected)
    (got,) = torch.autograd.grad(out.loss, z)
    (wanted,) = torch.autograd.grad(expected, z)
    close(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "groups",
    [
        [LFQ(bits=2), LFQ(bits=2)],
        [LFQ(bits=2, entropy_weight=0.0), LFQ(bits=3, entropy_weight=0.0)],
        [VectorQuantizer(2, codebook_size=4)],
    ],
    ids=["weighted twice", "other bits", "no bits"],
)
def test_groups_that_cannot_be_pooled_are_named(groups):
    with pytest.raises(ConfigError) as error:
        Grouped(groups=groups, pooled_entropy_weight=0.1)
    assert str(error.value) == (
        "Grouped: expected groups of lfq or bsq with equally many bits and entropy_weight=0 for a "
        f"pooled_entropy_weight; got {type(groups[0]).__name__} that are not. Change the groups, "
        "or set it to 0."
    )


def test_golden_joint_entropy_of_all_bits_is_below_the_groups():
    close(LFQ(bits=4)(X).terms["entropy_batch"], 2.662476)


def test_one_group_is_the_head_itself():
    inner = VectorQuantizer(6, codebook_size=9)
    z = torch.randn(2, 5, 6)
    a, b = Grouped(groups=[inner])(z), inner(z)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.loss, b.loss)


def test_sizes_and_bits_add_up():
    stack = Residual(4, stages=[VectorQuantizer(4, codebook_size=8) for _ in range(2)])
    head = Grouped(16, groups=[LFQ(bits=3), stack])
    assert head.codebook_sizes == (8, 8, 8)
    assert (head.dim, head.code_dim, head.num_codebooks) == (16, 7, 3)
    assert head.vocab_size == 512
    assert head.bits_per_position == 9.0


def test_a_config_nests_heads_as_data():
    config = {
        "name": "grouped",
        "groups": {
            "repeat": 2,
            "of": {
                "name": "residual",
                "stages": {"repeat": 3, "of": {"name": "vq", "codebook_size": 8}},
            },
        },
    }
    head = registry.build("quantizer", config, dim=10)
    assert head(torch.randn(2, 4, 10)).indices.shape == (2, 4, 6)
    assert head.groups[0].stages[2].dim == 5


def test_a_config_may_leave_natural_widths():
    config = {
        "name": "grouped",
        "code_dim": 6,
        "groups": [{"name": "lfq", "bits": 4}, {"name": "fsq", "levels": [5, 5, 5]}],
    }
    head = registry.build("quantizer", config, dim=12)
    assert [group.dim for group in head.groups] == [3, 3]
    assert [group.code_dim for group in head.groups] == [4, 3]


def test_a_width_that_cannot_be_shared():
    config = {"name": "grouped", "groups": {"repeat": 3, "of": {"name": "lfq", "bits": 4}}}
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", config, dim=10)
    assert str(error.value) == (
        "Grouped: expected a width that 3 groups can share; got 10. Set code_dim to a multiple."
    )


def test_groups_that_do_not_fill_the_width():
    with pytest.raises(ConfigError) as error:
        Grouped(groups=[LFQ(bits=4)], code_dim=6)
    assert str(error.value) == (
        "Grouped: expected groups of 6 channels in all; got 4. "
        "Set code_dim to the sum, or give each group its dim."
    )


def test_no_groups():
    with pytest.raises(ConfigError) as error:
        Grouped(8, groups=[])
    assert str(error.value) == "Grouped: expected at least one group; got none."


def tables(*codes):
    """Groups of two channels that search fixed codes."""
    return [with_codes(VectorQuantizer(2, codebook_size=2), table) for table in codes]


def test_golden_disentanglement():
    groups = tables([(1, 0), (0, 1)], [(1, 1), (0, 2)])
    z = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 2.0]])
    plain, out = Grouped(groups=groups)(z), Grouped(groups=groups, disentangle_weight=0.1)(z)
    close(out.terms["disentangle"], 0.75)
    close(out.loss - plain.loss, 0.075)
    assert "disentangle" not in plain.terms


def test_disentanglement_of_three_groups_is_the_mean_over_pairs():
    groups = tables([(1, 0), (9, 9)], [(1, 1), (9, 9)], [(0, 2), (9, 9)])
    z = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0, 2.0]])
    out = Grouped(groups=groups, disentangle_weight=1.0)(z)
    close(out.terms["disentangle"], (0.5 + 0.0 + 0.5) / 3)


def test_disentanglement_turns_latents_and_leaves_codes():
    groups = tables([(1, 0), (9, 9)], [(1, 1), (9, 9)])
    z = torch.tensor([[0.9, 0.1, 1.2, 0.8]], requires_grad=True)
    plain, out = Grouped(groups=groups)(z), Grouped(groups=groups, disentangle_weight=1.0)(z)
    (out.loss - plain.loss).backward()
    # d cos^2(a, b) / da = 2 cos (b/|b| - cos a/|a|) / |a| at the codes a = (1, 0), b = (1, 1)
    close(z.grad[0], [0.0, 1.0, 0.5, -0.5])
    assert all(float(group.codebook.grad.abs().sum()) < 1e-6 for group in groups)


def test_groups_that_cannot_be_disentangled():
    with pytest.raises(ConfigError) as error:
        Grouped(groups=[LFQ(bits=2), LFQ(bits=3)], disentangle_weight=0.1)
    assert str(error.value) == (
        "Grouped: expected at least two groups of one width to disentangle; got [2, 3]. "
        "Set disentangle_weight to 0."
    )
