"""KARL's importer and network against functions of the upstream state dict."""

import pytest
import torch
from reference.distilled import draw_karl, look_up, make, run_karl
from reference.published_checks import check_strictness, close, message, picture

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

HEADS = {"heads": 4, "desired_reconstruction_quality": 0.05}


@torch.no_grad()
@pytest.mark.parametrize(("count", "wished"), [(5, 0.05), (12, 0.3), (12, 0.9), (9, 0.001)])
def test_budget_and_wish_are_those_of_the_formulas(count, wished):
    state = make("karl")
    tok = from_published("karl", state, HEADS)
    x = picture(2, 32, 32)
    z, halt = run_karl(state, (x + 1) / 2, count, wished, heads=4, side=4)
    ours, keep = tok.encoder.allocate(x, wished, count)
    assert close(ours, z)
    assert keep.equal(halt <= 0.75)
    index, gap, q = look_up(state, z)
    codes = tok.encode(x, num_tokens=count, target_error=wished)
    assert codes.indices.shape == (2, count, 1)
    found = codes.indices[..., 0]
    assert (found[~keep] == -1).all()
    assert (found == index)[keep & (gap > 1e-4)].all()
    _, pixels = draw_karl(state, q, keep, heads=4, side=4)
    assert close(tok.decode(codes, raw=True), 2 * pixels - 1)


@torch.no_grad()
def test_some_tokens_are_needed_and_some_are_not():
    _, keep = from_published("karl", make("karl"), HEADS).encoder.allocate(picture(2, 32, 32))
    assert 0 < keep.float().mean() < 1


@torch.no_grad()
def test_what_nobody_asks_for_is_the_published_default():
    tok = from_published("karl", make("karl"), {**HEADS, "input_token_budget": [6]})
    x = picture(2, 32, 32)
    plain = tok.encode(x).indices
    assert plain.equal(tok.encode(x, num_tokens=6, target_error=0.05).indices)
    assert plain.shape == (2, 6, 1)


def test_wrong_files_and_values_are_named():
    state = make("karl")
    check_strictness("karl", state, HEADS, key="halting_mlp.0.bias", shown="encoder.halt.0.bias")
    where = "from_published('karl'): expected a checkpoint of this family; got "
    assert message("karl", make("alit")) == where + "one without rec_loss_embeddings."
    found = message("karl", state, {"head": 4}, error=ConfigError)
    assert found.endswith("got 'head'. Pass those of the published model.")
    tok = from_published("karl", state, HEADS)
    with pytest.raises(ConfigError) as error:
        tok.encode(picture(1, 32, 32), target_error=0.0)
    assert str(error.value).startswith("encode: expected a target_error above 0; got 0.0.")
