"""ALIT's importer and network against functions of the upstream state dict."""

import pytest
import torch
from reference.distilled import draw_alit, look_up, make, run_alit
from reference.published_checks import check_strictness, close, message, picture

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

HEADS = {"heads": 4}


@torch.no_grad()
def test_every_rollout_is_that_of_the_formulas():
    state = make("alit")
    tok = from_published("alit", state, HEADS)
    x = picture(2, 32, 32)
    for i, z in enumerate(run_alit(state, (x + 1) / 2, 3, heads=4)):
        count = 4 * (i + 1)
        assert close(tok.encoder(x, num_tokens=count), z)
        index, gap, q = look_up(state, z)
        found = tok.encode(x, num_tokens=count).indices
        assert found.shape == (2, count, 1)
        assert (found[..., 0] == index)[gap > 1e-4].all()
        assert (gap > 1e-4).float().mean() > 0.9
        _, pixels = draw_alit(state, q, heads=4, side=4)
        assert close(tok.decode(index[..., None], raw=True), 2 * pixels - 1)


@torch.no_grad()
def test_a_wished_error_takes_the_first_rollout_that_reaches_it():
    tok = from_published("alit", make("alit"), HEADS)
    x = picture(2, 32, 32)
    errors = []
    for count in (4, 8, 12):
        x_hat = tok.decode(tok.encode(x, num_tokens=count))
        errors.append((x_hat - x).abs().flatten(1).mean(1) / 2)
    wished = float(torch.stack(errors).min(0).values.max()) + 1e-4  # both items reach it
    codes = tok.encode(x, target_error=wished)
    for item in range(2):
        first = next(i for i, error in enumerate(errors) if error[item] <= wished)
        assert int((codes.indices[item] >= 0).sum()) == 4 * (first + 1)
    x_hat = tok.decode(codes)
    assert ((x_hat - x).abs().flatten(1).mean(1) / 2 <= wished + 1e-6).all()
    alone = tok.decode(tok.encode(x[:1], num_tokens=int((codes.indices[0] >= 0).sum())))
    torch.testing.assert_close(x_hat[:1], alone, rtol=1e-3, atol=1e-4)


def test_wrong_files_and_values_are_named():
    state = make("alit")
    check_strictness(
        "alit", state, HEADS, key="encoder_ln_recursive.bias", shown="encoder.norm_again.bias"
    )
    where = "from_published('alit'): expected a checkpoint of this family; got "
    assert message("alit", make("karl")) == where + "one without a timestep_embedding."
    other = {key: value for key, value in state.items() if not key.startswith("base")}
    assert message("alit", other) == where + "one on another base than the VQGAN of MAGE."
    found = message("alit", state, {"head": 4}, error=ConfigError)
    assert found.endswith("got 'head'. Pass those of the published model.")


def test_the_token_counts_are_named():
    tok = from_published("alit", make("alit"), HEADS)
    with pytest.raises(ValueError, match="expected num_tokens of 4 8 12; got 5"):
        tok.encode(picture(1, 32, 32), num_tokens=5)
