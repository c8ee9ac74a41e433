"""Soft targets: how likely each code is to stand for a latent, stage by stage."""

import pytest
import torch
from golden import close, with_codes

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.soft import soft_targets
from tokenizers_vq.quantizers.vq import VectorQuantizer

C4 = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
VQ = {"name": "vq", "codebook_size": 16}
TABLES = {
    "vq": VQ,
    "cosine": {**VQ, "metric": "cosine", "code_dim": 3},
    "affine": {**VQ, "affine": True},
    "factorized": {"name": "factorized", "codebook_size": 16},
    "simvq": {"name": "simvq", "codebook_size": 16},
    "shared_index": {"name": "shared_index", "codebook_size": 16, "parts": [4, 2]},
}
STACKS = {
    "residual": {"name": "residual", "stages": {"repeat": 3, "of": VQ}, "stage_scale": 0.5},
    "shared": {"name": "residual", "stages": [VQ], "repeat": 2, "soft_clamp": 2.0},
    "mcrvq": {"name": "mcrvq", "stages": {"repeat": 3, "of": VQ}, "parts": 2},
    "grouped": {"name": "grouped", "groups": {"repeat": 2, "of": VQ}},
    "rotated": {"name": "rotated", "inner": VQ},
    "projected": {"name": "projected", "inner": VQ},
    "perturbed": {"name": "perturbed", "inner": VQ},
}


def make(name):
    torch.manual_seed(1)
    return registry.build("quantizer", (TABLES | STACKS)[name], dim=6).eval()


def test_golden_distribution():
    head = with_codes(VectorQuantizer(2, codebook_size=4), C4)
    indices, (p,) = soft_targets(head, torch.tensor([[0.25, 0.0]]), 0.5)
    assert indices.tolist() == [[0]]
    weights = torch.exp(torch.tensor([[-0.0625, -0.5625, -1.0625, -7.0625]]) / 0.5)
    close(p, weights / weights.sum())


@pytest.mark.parametrize("name", TABLES | STACKS)
def test_the_tokens_are_those_of_encode_and_the_likeliest(name):
    head, z = make(name), torch.randn(2, 4, 5, 6)
    indices, probs = soft_targets(head, z, 0.7)
    assert torch.equal(indices, head.encode(z))
    assert tuple(p.shape[-1] for p in probs) == head.codebook_sizes
    for column, p in zip(indices.unbind(-1), probs, strict=True):
        assert p.shape[:-1] == column.shape
        assert torch.equal(p.argmax(-1), column)
        close(p.sum(-1), torch.ones(column.shape))
    _, cold = soft_targets(head, z, 1e-9)
    for column, p in zip(indices.unbind(-1), cold, strict=True):
        close(p, torch.nn.functional.one_hot(column, p.shape[-1]).float(), atol=1e-3)


def test_later_stages_follow_the_drawn_codes():
    head, z = make("residual"), torch.randn(1, 6).expand(5000, 6)
    generator = torch.Generator().manual_seed(3)
    indices, probs = soft_targets(head, z, 2.0, sample=True, generator=generator)
    share = torch.bincount(indices[:, 0], minlength=16) / 5000
    close(share, probs[0][0], atol=0.03)
    rest = (z - head.decode(indices[:, :1])) / head.stage_scale
    expected = torch.softmax(-(rest[:, None] - head.stages[1].codes()).square().sum(-1) / 2, 1)
    close(probs[1], expected, atol=1e-5)
    again, _ = soft_targets(head, z, 2.0, sample=True, generator=generator.manual_seed(3))
    assert torch.equal(again, indices)


def test_empty_and_half_precision_latents():
    head = make("residual")
    indices, probs = soft_targets(head, torch.zeros(0, 3, 6), 1.0)
    assert indices.shape == (0, 3, 3)
    assert probs[0].shape == (0, 3, 16)
    z = torch.randn(4, 6).bfloat16()
    assert soft_targets(head, z, 1.0)[1][0].dtype == torch.float32
    z[0, 0] = float("nan")
    assert bool(torch.isfinite(soft_targets(head, z, 1.0)[1][0]).all())


@pytest.mark.parametrize(
    "config",
    [
        {"name": "fsq", "levels": [3, 3]},
        {"name": "residual", "stages": {"repeat": 2, "of": {"name": "lfq", "bits": 6}}},
        {"name": "mcquic", "codebook_size": 4},
    ],
    ids=lambda config: config["name"],
)
def test_heads_without_a_table_are_named(config):
    head = registry.build("quantizer", config, dim=6)
    part = head.stages[0] if config["name"] == "residual" else head
    with pytest.raises(ConfigError) as error:
        soft_targets(head, torch.zeros(2, 4, 4, 6), 1.0)
    assert str(error.value) == (
        f"soft_targets: expected a head that searches a table; got {type(part).__name__}. "
        "Use its indices."
    )


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_named(temperature):
    with pytest.raises(ConfigError) as error:
        soft_targets(make("vq"), torch.zeros(2, 6), temperature)
    assert str(error.value) == (
        f"soft_targets: expected a temperature above 0; got {temperature}. Use encode for hard "
        "targets."
    )
