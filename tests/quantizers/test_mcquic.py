import math

import pytest
import torch
from golden import close

from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.mcquic import McQuic
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.tokenizer import Tokenizer


def head(levels=3, size=8, **options):
    torch.manual_seed(0)
    return McQuic(4, codebook_size=size, levels=levels, **options)


def message(call, error=ConfigError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_codes_are_drawn_with_the_stated_probabilities():
    one = head(levels=1, size=4, temperature=3.0)
    z = torch.randn(4).expand(20000, 1, 1, 4)
    distance = (z[0, 0] - one.codebook[0, 0]).square().sum(-1)
    expected = torch.softmax(-3 * distance / math.sqrt(4), dim=0)
    torch.manual_seed(1)
    drawn = torch.bincount(one(z).indices.flatten(), minlength=4) / 20000
    torch.testing.assert_close(drawn, expected.detach(), atol=0.015, rtol=0)
    assert one.eval()(z).indices.unique().tolist() == [int(distance.argmin())]


def test_a_drawn_code_is_what_the_output_and_the_index_say():
    one = head()
    z = torch.randn(2, 4, 4, 4)
    out = one(z)
    assert torch.equal(one.decode(out.indices, (4, 4)), out.z_q)
    assert not torch.equal(out.indices, one.encode(z))


def test_the_gradient_to_the_latents_is_that_of_the_softmax():
    one = head(levels=1, size=4).eval()
    z = torch.randn(3, 1, 1, 4, requires_grad=True)
    g = torch.randn(3, 1, 1, 4)
    (got,) = torch.autograd.grad(one(z).z_q, z, g)
    distance = (z.reshape(3, 1, 4) - one.codebook[0, 0].detach()).square().sum(-1)
    soft = torch.softmax(-distance / 2, dim=1) @ one.codebook[0, 0].detach()
    (expected,) = torch.autograd.grad(soft.reshape(3, 1, 1, 4), z, g)
    torch.testing.assert_close(got, expected)


def test_levels_halve_and_what_is_left_goes_down():
    one = head().eval()
    assert one.level_grids((5, 8)) == [(5, 8), (3, 4), (2, 2)]
    assert one.token_count((5, 8)) == 40 + 12 + 4
    z = torch.randn(2, 4, 4, 4)
    indices = one.encode(z)
    codes = one.lookup(indices, (4, 4))
    rest = (z - codes[:, :16].reshape(2, 4, 4, 4)).movedim(-1, 1)
    second = one.down[0](rest).flatten(2).mT
    nearest = torch.cdist(second, one.codebook[1, 0][None]).argmin(-1)
    assert torch.equal(indices[:, 16:20, 0], nearest)


def test_without_the_maps_between_levels_only_the_finest_counts():
    one = head(levels=2).eval()
    with torch.no_grad():
        for conv in one.up:
            conv.weight.zero_(), conv.bias.zero_()
    z = torch.randn(2, 4, 4, 4)
    indices = one.encode(z)
    fine = one.lookup(indices, (4, 4))[:, :16].reshape(2, 4, 4, 4)
    torch.testing.assert_close(one(z).z_q, fine)


def test_the_sharpness_has_a_floor_below_which_it_still_learns():
    one = head(levels=1)
    with torch.no_grad():
        one.temperature.fill_(-1.0)
    out = one(torch.randn(2, 4, 4, 4))
    close(out.terms["temperature"], 1e-6)
    out.z_q.square().sum().backward()
    assert float(one.temperature.grad.abs().sum()) > 0


def test_frequencies_follow_what_was_drawn():
    one = head(levels=2, size=4, codebooks=2, decay=0.75)
    indices = torch.zeros(3, 20, 2, dtype=torch.int64)
    indices[:, :8] = 1
    one.update(torch.randn(3, 4, 4, 4), indices)
    close(one.frequencies[0], [[0.75 / 4 + 0.125, 0.75 / 4 + 0.125, 0.75 / 4, 0.75 / 4]] * 2)
    close(one.frequencies[1, :, 0], [0.75 / 4 + 0.25] * 2)


def test_frequent_codes_are_left_out_at_random():
    one = head(levels=1, size=4, drop_frequent=True)
    with torch.no_grad():
        one.temperature.fill_(100.0)
        one.frequencies.copy_(torch.tensor([0.97, 0.01, 0.01, 0.01]))
        z = one.codebook[0, 0, 0].expand(2000, 1, 1, 4)
    torch.manual_seed(1)
    kept = float((one(z).indices == 0).float().mean())
    assert kept == pytest.approx(0.03, abs=0.02)  # all codes are used: P(dropped) = frequency
    assert bool((one.eval()(z).indices == 0).all())


def test_codes_that_never_occur_copy_frequent_ones():
    one = head(levels=1, size=4, decay=0.0, restart_every=1)
    before = one.codebook.detach().clone()
    one.update(torch.randn(2, 4, 4, 4), torch.full((2, 16, 1), 3))
    assert torch.equal(one.codebook[0, 0, [2, 3]], before[0, 0, [2, 3]])  # at most half change
    assert torch.equal(one.codebook[0, 0, [0, 1]], before[0, 0, [3, 3]])


def test_codes_of_a_tokenizer_survive_compression():
    quantizer = {**read_config("quantizer", "mcquic"), "codebook_size": 16}
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": quantizer}
    tokenizer = Tokenizer.from_config(config).eval()
    x = torch.rand(2, 3, 64, 40) * 2 - 1
    codes = tokenizer.encode(x)
    assert codes.indices.shape == (2, 40 + 12 + 4 + 1 + 1, 1)
    assert torch.equal(tokenizer.decompress(tokenizer.compress(x)), tokenizer.decode(codes))


def test_tokens_without_a_grid_are_refused():
    indices = torch.zeros(2, 21, 1, dtype=torch.int64)
    assert message(lambda: head().decode(indices), ShapeError) == (
        "McQuic: expected the grid of the latents; got only (21,) for the tokens of all levels. "
        "Call decode(indices, grid), or decode Codes."
    )


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("levels", 0, "1..16"), ("codebooks", 0, "1..4096"), ("axes", 4, "1..3")],
)
def test_options_out_of_range_are_refused(option, value, allowed):
    assert message(lambda: head(**{option: value})) == (
        f"McQuic: expected {option} in {allowed}; got {value}. Correct it."
    )


def test_codebooks_that_cannot_share_the_width_are_refused():
    assert message(lambda: head(codebooks=3)) == (
        "McQuic: expected a width that 3 codebooks can share; got 4. "
        "Set dim or code_dim to a multiple."
    )


def test_it_is_no_part_of_another_head():
    assert message(lambda: Residual(4, stages=[head()])) == (
        "Residual: expected parts that quantize each position by itself; got McQuic. "
        "Make that the outermost head."
    )


def test_a_temperature_and_a_decay_out_of_range_are_named():
    assert message(lambda: head(temperature=0.0)) == (
        "McQuic: expected a temperature above 0; got 0.0. Correct it."
    )
    assert message(lambda: head(decay=3.0)) == (
        "McQuic: expected decay in 0..1; got 3.0. It is a probability or share."
    )
