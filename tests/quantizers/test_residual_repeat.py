"""The same codebooks at several depths, as in RQ-VAE."""

import pytest
import torch
import vector_quantize_pytorch
from golden import C4, X, close, with_codes

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.vq import VectorQuantizer


def shared(**options):
    stage = VectorQuantizer(2, codebook_size=4, commitment_weight=1.0, **options)
    return Residual(stages=[with_codes(stage, C4)], repeat=2)


def test_golden_codes_and_commitment():
    head = shared(codebook_update="ema")
    out = head(X)
    assert out.indices[0].tolist() == [[0, 0], [1, 0], [3, 0], [2, 0], [1, 0]]
    assert head.codebook_sizes == (4, 4)
    close(out.terms["commitment"], 0.082)
    close(out.loss, 0.082)


def test_golden_training_step():
    head = shared(codebook_update="ema", decay=0.9, restart_threshold=0.0)
    head.update(X, head(X).indices)
    close(head.stages[0].cluster_size, [1.4, 0.99, 0.9, 0.9])
    codes = [[-0.03, -0.022143], [0.972727, 0.018182], [0.01, 0.969998], [1.939997, 1.959997]]
    close(head.stages[0].codebook, codes, atol=3e-5)  # the reference smooths the counts


def test_the_codebook_is_held_once():
    head = shared()
    assert [key for key, _ in head.named_parameters()] == ["stages.0.codebook"]
    assert head.num_codebooks == 2
    assert head.bits_per_position == 4


def test_two_stages_twice_are_four_stages_with_equal_codebooks():
    pair = [VectorQuantizer(6, codebook_size=16) for _ in range(2)]
    for scale, stage in zip((1.0, 0.5), pair, strict=True):
        with_codes(stage, scale * torch.randn(16, 6))
    four = [VectorQuantizer(6, codebook_size=16) for _ in range(4)]
    for i, stage in enumerate(four):
        stage.load_state_dict(pair[i % 2].state_dict())
    z = torch.randn(9, 5, 6)
    a, b = Residual(stages=pair, repeat=2)(z), Residual(stages=four)(z)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.loss, b.loss)


def test_codes_agree_with_vector_quantize_pytorch():
    theirs = vector_quantize_pytorch.ResidualVQ(
        dim=6, num_quantizers=3, codebook_size=16, shared_codebook=True
    ).eval()
    stage = VectorQuantizer(6, codebook_size=16)
    with_codes(stage, theirs.layers[0]._codebook.embed[0])
    head = Residual(stages=[stage], repeat=3).eval()
    z = torch.randn(4, 25, 6)
    quantized, indices, _ = theirs(z)
    assert torch.equal(head.encode(z), indices)
    torch.testing.assert_close(head(z).z_q, quantized)


def test_a_prefix_of_a_shared_stack_decodes():
    head = shared()
    indices = head.encode(X)
    close(head.decode(indices[..., :1]), C4[indices[..., 0]])


def test_every_depth_of_an_update_sees_the_codes_of_the_forward():
    head = shared(codebook_update="ema", decay=0.5, restart_threshold=0.0)
    head.update(X, head(X).indices)
    rest = X[0] - C4[torch.tensor([0, 1, 3, 2, 1])]
    first = torch.stack([X[0, 0], X[0, 1] + X[0, 4], X[0, 3], X[0, 2]])
    sums = 0.5 * (0.5 * C4 + 0.5 * first)
    sums[0] += 0.5 * rest.sum(0)
    close(head.stages[0].cluster_sum, sums)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_kmeans_starts_a_shared_codebook_once(update):
    options = {"codebook_update": update, "kmeans_init": "plusplus"}
    head = Residual(3, stages=[VectorQuantizer(3, codebook_size=8, **options)], repeat=3)
    z = torch.randn(2, 200, 3)
    before = head(z)
    head.update(z, before.indices)
    after = head(z)
    assert float(head.stages[0].initialized) == 1
    assert float(head.stages[0].updates) == 3
    error = [float((z - out.z_q).square().mean()) for out in (before, after)]
    assert error[1] < 0.5 * error[0]


def test_stages_are_dropped_at_any_depth():
    head = Residual(2, stages=[VectorQuantizer(2, codebook_size=4)], repeat=3, stage_dropout=1.0)
    depth = (head(torch.randn(64, 2, 2)).indices >= 0).sum(-1)
    assert set(depth.flatten().tolist()) == {1, 2, 3}


@pytest.mark.parametrize("option", ["repeat", "beam"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_counts_below_one(option, value):
    with pytest.raises(ConfigError) as error:
        Residual(2, stages=[VectorQuantizer(2, codebook_size=4)], **{option: value})
    assert str(error.value) == (
        f"Residual: expected a {option} of at least 1; got {value}. Give a positive whole number."
    )
