import pytest
import torch
from golden import X, close, with_codes

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.straight_through import rotate_to
from tokenizers_vq.quantizers.factorized import FactorizedVQ
from tokenizers_vq.quantizers.fsq import FSQ
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer

LEVEL_1 = [[0, 0], [1, 0], [0, 1], [1, 1]]
LEVEL_2 = [[0, 0], [0.25, 0], [0, -0.25], [-0.25, 0.25]]


def golden(**options):
    stages = [
        with_codes(VectorQuantizer(2, codebook_size=4, commitment_weight=1.0, **options), codes)
        for codes in (LEVEL_1, LEVEL_2)
    ]
    return Residual(stages=stages)


def stack(depth=4, dim=6, **options):
    stages = [VectorQuantizer(dim, codebook_size=16) for _ in range(depth)]
    for stage in stages:
        with_codes(stage, 0.5 * torch.randn(16, dim))
    return Residual(dim, stages=stages, **options)


def test_golden():
    out = golden(codebook_update="ema")(X)
    assert out.indices[0].tolist() == [[0, 1], [1, 3], [3, 1], [2, 2], [1, 0]]
    close(out.z_q.flatten(), [0.25, 0, 0.75, 0.25, 1.25, 1, 0, 0.75, 1, 0])
    close(out.terms["commitment/0"], 0.082)
    close(out.terms["commitment/1"], 0.04825)
    close(out.loss, (0.082 + 0.04825) / 2)


def test_the_error_of_a_prefix_is_the_loss_of_its_last_stage():
    head = golden(codebook_update="ema").eval()
    out = head(X)
    for depth in (1, 2):
        error = (head.decode(out.indices[..., :depth]) - X).square().mean()
        close(error, float(out.terms[f"commitment/{depth - 1}"]))
    assert torch.equal(head.decode(out.indices), out.z_q)


def test_golden_residual_bits():
    head = Residual(stages=[LFQ(bits=3) for _ in range(3)], stage_scale=0.5)
    out = head(torch.tensor([[0.9, -0.2, 0.05], [-1.6, 0.7, 0.3]]))
    close(out.z_q, [[0.75, -0.25, 0.25], [-1.75, 0.75, 0.25]])
    msb_first = [[int(f"{i:03b}"[::-1], 2) for i in row] for row in out.indices.tolist()]
    assert msb_first == [[5, 2, 6], [3, 0, 2]]


def test_four_stages_of_three_levels_are_seventeen_levels():
    stages = [FSQ(levels=(3,) * 6, bound="clamp") for _ in range(4)]
    z = 2 * torch.rand(5000, 6) - 1
    fine = FSQ(levels=(17,) * 6, bound="clamp")(z).z_q
    assert torch.equal(Residual(stages=stages, stage_scale=0.5)(z).z_q, fine)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_encoder_gradient_is_the_identity_at_every_depth(dropout):
    head = stack(stage_dropout=dropout)
    z = torch.randn(7, 5, 6, requires_grad=True)
    g = torch.randn(7, 5, 6)
    head(z).z_q.backward(g)
    assert torch.equal(z.grad, g)


def test_the_gradient_is_the_identity_through_stages_with_maps_of_their_own():
    head = Residual(6, stages=[FactorizedVQ(6, codebook_size=8, code_dim=2) for _ in range(3)])
    z = torch.randn(7, 5, 6, requires_grad=True)
    g = torch.randn(7, 5, 6)
    head(z).z_q.backward(g)
    assert torch.equal(z.grad, g)
    for stage in head.stages:
        assert float(stage.project_in.weight.grad.abs().sum()) > 0
        assert float(stage.project_out.weight.grad.abs().sum()) > 0
        assert stage.codebook.grad is None


def test_every_stage_commits():
    head = stack()
    z = torch.randn(7, 5, 6, requires_grad=True)
    for i, stage in enumerate(head.stages):
        for other in head.stages:
            other.commitment_weight = float(other is stage)
        (gradient,) = torch.autograd.grad(head(z).loss, z)
        assert float(gradient.abs().max()) > 0, i


def test_one_stage_is_the_head_itself():
    head = stack(depth=1)
    z = torch.randn(4, 3, 6)
    a, b = head(z), head.stages[0](z)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.loss, b.loss)


def test_dropped_stages_have_no_index_no_output_and_no_update():
    head = stack(stage_dropout=1.0)
    z = torch.randn(64, 5, 6)
    out = head(z)
    depth = (out.indices >= 0).sum(-1)
    assert bool((depth == depth[:, :1]).all())  # one depth for each item
    assert set(depth.flatten().tolist()) == {1, 2, 3, 4}
    torch.testing.assert_close(head.eval().decode(out.indices), out.z_q)
    head.train().update(z, out.indices)
    for i, stage in enumerate(head.stages):
        counted = (float(stage.cluster_size.sum()) - 0.99 * 16) / 0.01
        assert counted == pytest.approx(int((depth > i).sum()), abs=0.1)


def test_dropout_uses_the_torch_generator_and_stops_in_evaluation():
    head = stack(stage_dropout=0.5)
    z = torch.randn(64, 5, 6)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(head(z).indices)
    assert torch.equal(*drawn)
    assert bool((head.eval()(z).indices >= 0).all())


def test_kmeans_starts_every_stage_on_its_own_residuals():
    options = {"codebook_size": 8, "codebook_update": "ema", "kmeans_init": "plusplus"}
    head = Residual(3, stages=[VectorQuantizer(3, **options) for _ in range(3)])
    z = torch.randn(2, 200, 3)
    head.update(z, head(z).indices)
    errors = [float(head(z).terms[f"commitment/{i}"]) for i in range(3)]
    assert errors[0] > errors[1] > errors[2]


def test_updating_replays_the_chain():
    head = golden(codebook_update="ema", decay=0.5, restart_threshold=0.0)
    out = head(X)
    head.update(X, out.indices)
    rest = X[0] - torch.tensor(LEVEL_1, dtype=torch.float32)[out.indices[0, :, 0]]
    chosen = out.indices[0, :, 1] == 1
    expected = 0.5 * torch.tensor([0.25, 0.0]) + 0.5 * rest[chosen].sum(0)
    close(head.stages[1].cluster_sum[1], expected)


def test_a_stage_of_another_width_is_refused():
    with pytest.raises(ConfigError) as error:
        Residual(8, stages=[FSQ(levels=(5, 5)), FSQ(8, levels=(5, 5))])
    assert str(error.value) == (
        "Residual: expected stages of width 8; got [2, 8]. "
        "Give each stage that dim, or set code_dim."
    )


def test_no_stages():
    with pytest.raises(ConfigError) as error:
        Residual(8, stages=[])
    assert str(error.value) == "Residual: expected at least one stage; got none."


def test_a_prefix_has_at_least_one_column():
    with pytest.raises(ShapeError) as error:
        stack().decode(torch.zeros(2, 0, dtype=torch.int64))
    assert str(error.value) == "decode: expected indices of shape (B, *grid, 1 to 4); got (2, 0)."


def test_the_rotation_trick_goes_around_the_sum():
    torch.manual_seed(0)
    stages = [VectorQuantizer(4, codebook_size=8) for _ in range(3)]
    stack = Residual(4, stages=stages, estimator="rotation")
    z, g = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4)
    out = stack(z)
    assert torch.equal(out.z_q, stack.decode(out.indices))
    (got,) = torch.autograd.grad(out.z_q, z, g)
    (expected,) = torch.autograd.grad(rotate_to(z, out.z_q.detach()), z, g)
    torch.testing.assert_close(got, expected)


def test_a_stage_that_rotates_is_refused():
    stages = [VectorQuantizer(4, codebook_size=8, estimator="rotation")]
    with pytest.raises(ConfigError) as error:
        Residual(4, stages=stages)
    assert str(error.value) == (
        "Residual: expected stages without the rotation trick; got one at stage 0. "
        "The gradient goes around the stages: give a residual stack estimator='rotation'."
    )
    with pytest.raises(ConfigError, match="Residual estimator: there is no 'diveq'"):
        Residual(4, stages=[VectorQuantizer(4, codebook_size=8)], estimator="diveq")


def test_a_dropout_that_is_no_probability_is_refused():
    with pytest.raises(ConfigError) as error:
        Residual(4, stages=[VectorQuantizer(4, codebook_size=8)], stage_dropout=1.5)
    assert str(error.value) == (
        "Residual: expected stage_dropout in 0..1; got 1.5. It is a probability or share."
    )
