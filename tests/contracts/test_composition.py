"""Every head inside every other: it works, or is refused with one sentence."""

import pytest
import torch
from cases import CONTINUOUS, D, all_cases

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.neighbours import perturb
from tokenizers_vq.quantizers.rows import RowQuantizer

CASES = all_cases()
GRID = (4, 4)


def twice(of):
    return {"repeat": 2, "of": of}


OUTER = {
    "residual": lambda of: {"name": "residual", "stages": twice(of)},
    "residual_beam": lambda of: {"name": "residual", "stages": twice(of), "beam": 2},
    "residual_repeat": lambda of: {"name": "residual", "stages": of, "repeat": 2},
    "residual_dropout": lambda of: {"name": "residual", "stages": twice(of), "stage_dropout": 0.5},
    "mcrvq": lambda of: {"name": "mcrvq", "stages": twice(of), "parts": 2},
    "grouped": lambda of: {"name": "grouped", "groups": twice(of), "code_dim": 2 * D},
    "grouped_disentangled": lambda of: {
        "name": "grouped", "groups": twice(of), "code_dim": 2 * D, "disentangle_weight": 0.1,
    },
    "perturbed": lambda of: {
        "name": "perturbed", "inner": of, "rate": 1.0, "share": 1.0, "count": 3,
    },
    "folded": lambda of: {"name": "folded", "inner": of},
    "projected": lambda of: {"name": "projected", "inner": of, "hidden": 8},
    "rotated": lambda of: {"name": "rotated", "inner": of},
    "multi_scale": lambda of: {"name": "multi_scale", "inner": of, "scales": [1, 2]},
    "multi_scale_each": lambda of: {"name": "multi_scale", "inner": twice(of), "scales": [1, 2]},
}  # fmt: skip
STACKS = ("residual", "mcrvq", "multi_scale")
# noise in training that scales would not see
NOISY = ("binary_mapper", "dithered_fsq", "fsp", "gumbel")
WITHOUT_NEIGHBOURS = {
    "qinco", "mcquic", "per_position", "random_projection", "multi_scale", "temporal_scales",
    "hierarchical",
}  # fmt: skip
INNER = {case.config["name"]: case.config for case in reversed(CASES.values())}  # the first of each


def outer_names():
    return [name for name, of in OUTER.items() if of({})["name"] in registry.names("quantizer")]


def build(outer, inner):
    torch.manual_seed(1)
    return registry.build("quantizer", OUTER[outer](INNER[inner]), dim=D)


def is_refused(outer, inner):
    """Return whether the composition means nothing; None where it depends on the inner head."""
    kind = registry.resolve("quantizer", inner)
    if kind.on_grid or (inner == "perturbed" and outer.startswith((*STACKS, "perturbed"))):
        return True
    if inner in NOISY and outer.startswith("multi_scale"):
        return True
    if outer == "residual_beam":  # which heads a beam can choose for is tested with it
        return None
    searches = kind.candidates is not RowQuantizer.candidates
    return False if outer != "perturbed" or searches else None


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", outer_names())
def test_a_composition_works_or_is_refused_in_one_sentence(outer, inner):
    expected = is_refused(outer, inner)
    try:
        head = build(outer, inner)
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message
        assert ": expected " in message
        assert "; got " in message
        assert message.endswith(".")
        assert expected is not False
        return
    assert not expected
    z = torch.randn(2, *GRID, D, requires_grad=True)
    out = head(z)
    assert out.z_q.shape == z.shape
    assert out.indices.shape == (2, *head.index_grid(GRID), head.num_codebooks)
    (out.z_q.square().mean() + out.loss).backward()
    assert bool(torch.isfinite(z.grad).all())
    head.update(z, out.indices)
    twin = build(outer, inner)
    twin.load_state_dict(head.state_dict(), strict=True)
    a, b = head.eval()(z), twin.eval()(z)
    assert torch.equal(head.encode(z), a.indices)
    assert torch.equal(head.decode(a.indices, GRID), a.z_q)
    for x, y in ((a.z_q, b.z_q), (a.indices, b.indices), (a.loss, b.loss)):
        assert torch.equal(x, y)


@pytest.mark.parametrize("name", CASES)
def test_tokens_of_every_head_have_neighbours_or_are_refused(name):
    torch.manual_seed(1)
    head = registry.build("quantizer", CASES[name].config, dim=D).eval()
    indices = head.encode(torch.randn(2, *(CASES[name].item_shape or GRID), D))
    if CASES[name].config["name"] in WITHOUT_NEIGHBOURS:
        try:
            perturb(head, indices, rate=1.0, count=4)
        except ConfigError:
            return
    other = perturb(head, indices, rate=1.0, count=4)
    assert other.shape == indices.shape
    assert bool(((other >= 0) & (other < torch.tensor(head.codebook_sizes))).all())
    assert not torch.equal(other, indices)


def test_what_nests_is_here():
    nests = {
        name for name in registry.names("quantizer")
        if hasattr(registry.resolve("quantizer", name), "inner_dim")
    }  # fmt: skip
    # layouts of given heads, tested whole in the contract
    layouts = {"hierarchical", "split_residual", "temporal_scales"}
    assert nests - layouts == {OUTER[name]({})["name"] for name in outer_names()}
    assert set(INNER) >= set(registry.names("quantizer")) - CONTINUOUS - layouts
