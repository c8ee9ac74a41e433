"""When the state of a head changes, and that it is all there is to a head."""

import copy
import pickle

import pytest
import torch
from making import HEADS, D, heads, latents, make, state, unchanged

from tokenizers_vq import registry


@heads
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference_mode"])
def test_forward_encode_and_decode_change_no_state(name, mode):
    head = make(name).train(mode != "eval")
    before = state(head)
    z = latents(name, 3, 5)
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    with context.get(mode, torch.enable_grad)():
        head.decode(head.encode(z), z.shape[1:-1])
        head(z)
    assert unchanged(head, before)


@heads
def test_update_changes_state_in_training_only(name):
    head = make(name)
    z = latents(name, 3, 40)
    before = state(head)
    indices = head(z).indices
    head.eval().update(z, indices)
    assert unchanged(head, before)
    head.train().requires_grad_(False).update(z, indices)
    assert unchanged(head, before)
    head.requires_grad_(True).update(z, indices)
    assert unchanged(head, before) != head.has_state


@pytest.mark.parametrize("name", ["rvq", "group_rvq"])
@pytest.mark.parametrize("how", ["frozen", "evaluation"])
def test_a_part_can_be_kept_from_changing_alone(name, how):
    head = make(name)
    first, second = head.stages if name == "rvq" else head.groups
    if how == "frozen":
        first.requires_grad_(False)
    else:
        first.eval()
    z = torch.randn(3, 40, D)
    before, others = state(first), state(second)
    head.update(z, head(z).indices)
    assert unchanged(first, before)
    assert not unchanged(second, others)


@heads
def test_the_loss_is_a_fresh_tensor(name):
    head = make(name)
    z = latents(name, 2, 3)
    with torch.no_grad():
        first = head(z).loss
        value = float(first)
        first += 5
        assert float(head(z).loss) == value
    assert not head.eval()(z.detach()).terms["nonfinite"].requires_grad


@heads
def test_the_state_dict_reproduces_outputs_bit_for_bit(name):
    head = make(name)
    z = latents(name, 3, 20)
    head.update(z, head(z).indices)
    twin = registry.build("quantizer", HEADS[name], dim=D)
    twin.load_state_dict(head.state_dict(), strict=True)
    a, b = head.eval()(z), twin.eval()(z)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.loss, b.loss)


@heads
def test_copies_and_pickles_are_equal_and_independent(name):
    head = make(name)
    z = latents(name, 3, 20)
    out = head(z)
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):  # noqa: S301 - our own bytes
        before = state(head)
        assert torch.equal(twin(z).z_q, out.z_q)
        twin.update(z, out.indices)
        assert unchanged(head, before)


@pytest.mark.parametrize("name", ["rvq", "mcrvq", "qinco", "multi_scale"])
def test_depths_are_drawn_from_the_generator_of_the_head(name):
    head = make(name)
    option = "scale_dropout" if name == "multi_scale" else "stage_dropout"
    setattr(head, option, 1.0)
    z = latents(name, 40, 2)

    def depths(seed, other):
        head.generator = None if seed is None else torch.Generator().manual_seed(seed)
        torch.manual_seed(other)
        return (head(z).indices >= 0).any(-1) if head.on_grid else head(z).indices >= 0

    assert torch.equal(depths(1, 0), depths(1, 9))
    assert not torch.equal(depths(1, 0), depths(2, 0))
    assert torch.equal(depths(None, 3), depths(None, 3))
    assert not torch.equal(depths(None, 3), depths(None, 4))
    copy.deepcopy(head)
