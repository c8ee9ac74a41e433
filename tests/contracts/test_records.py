"""A state says which head it is of: another head refuses it, also where every tensor would fit."""

import copy
from itertools import permutations

import pytest
import torch
from cases import D, all_cases
from safetensors.torch import load, save

from tokenizers_vq import registry
from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.quantizers.record import KEY, is_record, without_records

CASES = all_cases()
OTHER = {  # case: options that leave every weight its shape, and what the message says
    "fsq": ({"levels": [5, 8, 5]}, "levels=[8, 2 x 5]", "levels=[5, 8, 5]"),
    "fsq_symmetric": ({"bound": "clamp"}, "bound='symmetric'", "bound='clamp'"),
    "fsq_dithered": (
        {"levels": [3] * D},
        f"codebook_sizes=[{5**D}], levels=[{D} x 5]",
        f"codebook_sizes=[{3**D}], levels=[{D} x 3]",
    ),
    "fsp": ({"cdf": "sigmoid"}, "cdf='tanh'", "cdf='sigmoid'"),
    "lfq": ({"scale": 0.5}, "scale=1.0", "scale=0.5"),
    "latent": ({"levels": [4, 5, 3]}, "levels=[5, 4, 3]", "levels=[4, 5, 3]"),
    "token_bridge_natural": (
        {"order": None}, "order=[2, 0, 1, 5, 4, 3]", "order=[0, 1, 2, 3, 4, 5]"
    ),
    "vq": ({"metric": "cosine"}, "metric='euclidean'", "metric='cosine'"),
    "shared_index": ({"weights": [2.0, 1.0]}, "weights=[1.0, 2.0]", "weights=[2.0, 1.0]"),
    "rlfq": ({"stage_scale": 0.25}, "stage_scale=0.5", "stage_scale=0.25"),
    "rfsq_soft": ({"soft_clamp": None}, "soft_clamp=1.25", "soft_clamp=None"),
    "mcrvq": ({"parts": 3}, "parts=2", "parts=3"),
    "multi_scale": (
        {"scales": [1, 3, 4]},
        "scales=[[1, 1], [2, 2], [4, 4]]",
        "scales=[[1, 1], [3, 3], [4, 4]]",
    ),
    "ms_lfq": ({"scale_factor": 0.5}, "scale_factor=0.7", "scale_factor=0.5"),
}  # fmt: skip


def build(config):
    torch.manual_seed(1)
    return registry.build("quantizer", config, dim=D).eval()


def shapes(head):
    return {key: value.shape for key, value in without_records(head.state_dict()).items()}


@pytest.mark.parametrize("name", CASES)
def test_every_part_has_a_record_that_safetensors_keep(name):
    head = build(CASES[name].config)
    state = head.state_dict()
    records = [key for key in state if is_record(key)]
    assert KEY in records
    assert all(state[key].dtype == torch.uint8 for key in records)
    stored = {key: value.contiguous() for key, value in state.items()}
    head.load_state_dict(load(save(stored)), strict=True)


@pytest.mark.parametrize("name", CASES)
def test_a_state_from_before_there_were_records_loads(name):
    head = build(CASES[name].config)
    head.load_state_dict(without_records(head.state_dict()), strict=True)


@pytest.mark.parametrize("name", OTHER)
def test_a_state_of_other_conventions_is_refused_before_anything_changes(name):
    changes, here, there = OTHER[name]
    head, other = build(CASES[name].config), build({**CASES[name].config, **changes})
    assert shapes(head) == shapes(other)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        head.load_state_dict(other.state_dict())
    assert str(error.value) == (
        f"{type(head).__name__}: expected a state with {here}; got one with {there}. Build the "
        f"head as it was saved, or delete '{KEY}' from the state to load it all the same."
    )
    after = head.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_no_two_heads_of_the_contract_read_each_other_silently():
    heads = {name: build(case.config) for name, case in CASES.items()}
    like = {name: (shapes(head), copy.deepcopy(head.state_dict())) for name, head in heads.items()}
    compared = 0
    for a, b in permutations(heads, 2):
        if like[a][0] != like[b][0] or heads[a].on_grid or heads[b].on_grid:
            continue
        compared += 1
        try:
            heads[a].load_state_dict(like[b][1])
        except CheckpointError:
            continue
        heads[b].load_state_dict(like[b][1])
        z = torch.randn(2, 40, D)
        indices = heads[b].encode(z)
        assert torch.equal(heads[a].decode(indices), heads[b].decode(indices)), f"{a} reads {b}"
        if "beam" not in a + b:  # a wider search finds other tokens of the same meaning
            assert torch.equal(heads[a].encode(z), indices), f"{a} reads {b}"
    assert compared > 100


def test_a_part_of_another_head_is_refused_where_it_is():
    stack = {"name": "residual", "stages": [{"name": "lfq", "bits": D}], "repeat": 2}
    head = build(stack)
    other = build({**stack, "stages": [{"name": "lfq", "bits": D, "scale": 0.5}]})
    with pytest.raises(CheckpointError) as error:
        head.load_state_dict(other.state_dict())
    assert str(error.value) == (
        "LFQ: expected a state with scale=1.0; got one with scale=0.5. Build the head as it was "
        f"saved, or delete 'stages.0.{KEY}' from the state to load it all the same."
    )
    state = other.state_dict()
    del state[f"stages.0.{KEY}"]
    head.load_state_dict(state)


@pytest.mark.parametrize("record", [torch.zeros(3), torch.tensor([7], dtype=torch.uint8), "fsq"])
def test_a_damaged_record_is_named(record):
    head = build({"name": "lfq", "bits": D})
    with pytest.raises(CheckpointError) as error:
        head.load_state_dict({KEY: record})
    assert str(error.value) == (
        f"LFQ: expected a record of conventions under '{KEY}'; got something else. "
        "The file is damaged."
    )
