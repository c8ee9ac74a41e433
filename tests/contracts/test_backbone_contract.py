"""What every encoder and decoder must do, for each tiny backbone config."""

import copy
import re

import pytest
import torch

from tokenizers_vq import registry
from tokenizers_vq.backbones.base import TokenEncoder
from tokenizers_vq.backbones.field import FieldDecoder
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ShapeError
from tokenizers_vq.functional.framing import crop, pad_to_stride
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

TINY = [name for name in config_names("backbone") if name.startswith("tiny_")]
# Options that leave only convolutions, without which a shift of the signal is not a shift of the
# latents. A backbone that is no convolution at all is not listed.
CONVOLUTIONS = {"cnn2d": {"conventions": {"norm": "none", "adaptive": False}}}
# Parameters that plain encoding and decoding do not use: they choose tokens, or train.
ASIDE = {
    "alit": r"encoder\.mask_token",
    "flextok": r"decoder\.mask_token",
    "karl": r"encoder\.(halt\..*|norm_halt\..*)",
}

# Encoder options in bfloat16, where oneDNN of torch 2.14 convolves 8 channels by 8 samples in steps
# of 4 to numbers that have nothing to do with the right ones (AVX-512 and AMX).
BFLOAT16 = {"tiny_dac": {"width": 8}}


def part(name: str) -> str:
    return read_config("backbone", name)["encoder"]["name"]


def kind(name: str) -> str:
    return read_config("backbone", name)["signal"]["kind"]


def make(name: str, **options):
    """The encoder and decoder of a config, in eval mode, with options of the encoder replaced."""
    torch.manual_seed(0)
    config = read_config("backbone", name)
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    encoder = build("encoder", {**config["encoder"], **options}, **shared)
    decoder = build("decoder", config["decoder"], **shared)
    return encoder.eval(), decoder.eval()


def signal(encoder, *positions: int, batch: int = 2) -> torch.Tensor:
    """A random signal of ``positions`` latent positions per axis (cut or repeated to the rank).

    Encoders of one size get that size.
    """
    axes = encoder.signal.axes
    counts = (positions * axes)[:axes]
    shape = encoder.size or encoder.samples(counts)
    low, high = encoder.signal.value_range
    return torch.rand(batch, encoder.signal.channels, *shape) * (high - low) + low


@pytest.fixture(params=TINY)
def pair(request):
    return make(request.param)


def test_every_encoder_has_a_tiny_config():
    assert {part(name) for name in TINY} == set(registry.names("encoder")) - {"absent"}


@torch.no_grad()
def test_shapes_and_the_grid_law(pair):
    encoder, decoder = pair
    assert encoder.stride == decoder.stride
    assert encoder.dim == decoder.dim
    for positions in ((1,), (2, 3), (3, 1)):
        x = signal(encoder, *positions)
        z = encoder(x)
        assert z.shape == (2, *encoder.grid(x.shape[2:]), encoder.dim)
        x_hat = decoder.reconstruct(z, x)
        assert x_hat.shape == x.shape
        assert x_hat.isfinite().all()


@torch.no_grad()
def test_any_length_survives_framing(pair):
    encoder, decoder = pair
    for offset in (0, 1, max(encoder.stride) - 1):
        shape = tuple(1 + (offset + axis) % step for axis, step in enumerate(encoder.stride))
        if encoder.size is not None:
            sizes = zip(encoder.size, encoder.stride, shape, strict=True)
            shape = tuple(n - step + part for n, step, part in sizes)
        x = signal(encoder, 2)
        x = crop(x, shape)
        padded = pad_to_stride(x, encoder.stride, encoder.first)
        z = encoder(padded)
        assert z.shape[1:-1] == encoder.grid(shape)
        assert crop(decoder(z), shape).shape == x.shape


@torch.no_grad()
def test_items_of_a_batch_do_not_mix(pair):
    encoder, decoder = pair
    x = signal(encoder, 2, batch=3)
    z = encoder(x)
    torch.testing.assert_close(encoder(x[1:2]), z[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoder(z[1:2]), decoder(z)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_the_input_and_every_parameter(name):
    encoder, decoder = make(name)
    x = signal(encoder, 2).requires_grad_()
    # Squares, because a normalisation hides the mean of its output from the sum.
    decoder(encoder(x)).square().mean().backward()
    assert x.grad.abs().amax(dim=(0, 1)).gt(0).all()
    parameters = {
        f"{side}.{key}": p
        for side, module in (("encoder", encoder), ("decoder", decoder))
        for key, p in module.named_parameters()
    }
    missing = [key for key, p in parameters.items() if p.grad is None]
    assert [key for key in missing if not re.fullmatch(ASIDE.get(part(name), ""), key)] == []


def test_the_last_layer_is_a_parameter_of_the_decoder(pair):
    encoder, decoder = pair
    assert any(decoder.last_layer is p for p in decoder.parameters())
    loss = decoder(encoder(signal(encoder, 1))).mean()
    (gradient,) = torch.autograd.grad(loss, decoder.last_layer)
    assert gradient.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", TINY)
def test_bfloat16_autocast_is_close(name):
    encoder, decoder = make(name, **BFLOAT16.get(name, {}))
    # positions enough for the statistics of normalisations, which amplify the rounding of a few
    x = signal(encoder, 8 if kind(name) == "image" else 4)
    expected = decoder(encoder(x))
    with torch.autocast("cpu", torch.bfloat16):
        got = decoder(encoder(x))
    # from 0.001 in transformers to 0.007 behind the adaptive norms of MAGVIT2
    assert (got.float() - expected).abs().mean() <= 0.015 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in TINY if kind(name) == "image"])
def test_channels_last_memory_changes_nothing(name):
    encoder, decoder = make(name)
    x = signal(encoder, 2)
    z = encoder(x)
    x_hat = decoder(z)
    encoder, decoder = (m.to(memory_format=torch.channels_last) for m in (encoder, decoder))
    z_again = encoder(x.to(memory_format=torch.channels_last))
    for got, expected in ((z_again, z), (decoder(z_again), x_hat)):
        assert (got - expected).abs().max() <= 2e-4 * expected.abs().max()


@torch.no_grad()
def test_the_state_dict_round_trip_is_exact(pair):
    encoder, decoder = pair
    x = signal(encoder, 1)
    expected = decoder(encoder(x))
    states = [copy.deepcopy(module.state_dict()) for module in pair]
    for module in pair:
        for parameter in module.parameters():
            parameter.add_(1.0)
    for module, state in zip(pair, states, strict=True):
        module.load_state_dict(state, strict=True)
    assert torch.equal(decoder(encoder(x)), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in TINY if part(name) in CONVOLUTIONS])
def test_a_shift_by_one_stride_shifts_the_latents(name):
    encoder, _ = make(name, **CONVOLUTIONS[part(name)])
    count, margin = 24, 10  # positions per axis, and how far the border may reach
    x = signal(encoder, count, batch=1)
    for axis, step in enumerate(encoder.stride, start=2):
        shifted = encoder(x.roll(-step, dims=axis))
        z = encoder(x).roll(-1, dims=axis - 1)
        inner = (slice(None), *[slice(margin, count - margin)] * encoder.signal.axes)
        torch.testing.assert_close(shifted[inner], z[inner], rtol=1e-4, atol=1e-5)


# torch warns of the flattened weights of every LSTM that it exports
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@torch.no_grad()
def test_export_keeps_the_numbers_with_a_dynamic_batch(pair):
    encoder, decoder = pair
    batch = torch.export.Dim("batch", min=1, max=64)
    x, other = signal(encoder, 2), signal(encoder, 2, batch=3)
    exported = torch.export.export(encoder, (x,), dynamic_shapes=({0: batch},)).module()
    z = encoder(other)
    torch.testing.assert_close(exported(other), z, rtol=1e-4, atol=1e-5)
    exported = torch.export.export(decoder, (encoder(x),), dynamic_shapes=({0: batch},)).module()
    torch.testing.assert_close(exported(z), decoder(z), rtol=1e-4, atol=1e-5)


def test_other_ranks_and_channels_are_refused(pair):
    encoder, decoder = pair
    x = signal(encoder, 1)
    for wrong in (x[0], x[..., None], x.repeat(1, 5, *[1] * encoder.signal.axes)):
        with pytest.raises(ShapeError):
            encoder(wrong)
    z = encoder(x)
    for wrong in (z[0], z[..., None], z[..., :-1]):
        with pytest.raises(ShapeError):
            decoder(wrong)


@torch.no_grad()
def test_another_size_is_refused_where_there_is_one(pair):
    encoder, _ = pair
    if isinstance(encoder, TokenEncoder) and encoder.size is None:  # samples in no order
        return
    if encoder.size is None:
        ones = (1,) * encoder.signal.axes
        assert encoder.grid(encoder.samples(ones)) == ones
        return
    assert all(n % step == 0 for n, step in zip(encoder.size, encoder.stride, strict=True))
    other = [n + step for n, step in zip(encoder.size, encoder.stride, strict=True)]
    with pytest.raises(ShapeError, match="Resize it"):
        encoder(torch.zeros(1, encoder.signal.channels, *other))


@torch.no_grad()
def test_sequences_come_in_every_number_that_is_promised(pair):
    encoder, decoder = pair
    if not isinstance(encoder, TokenEncoder):
        assert encoder.latent_axes == encoder.signal.axes
        return
    x = signal(encoder, 1)
    assert encoder.grid(x.shape[2:]) == (encoder.num_tokens,)
    for count in {encoder.counts[0], encoder.counts[len(encoder.counts) // 2], encoder.num_tokens}:
        z = encoder(x, num_tokens=count)
        assert z.shape == (2, count, encoder.dim)
        if isinstance(decoder, FieldDecoder):  # sampled anywhere
            assert decoder(z, points=x[:, :3, :1]).shape == (2, 4, 1)
        else:
            assert (decoder(z).shape == x.shape) == (count in decoder.counts)
    with pytest.raises(ShapeError, match="expected num_tokens of"):
        encoder(x, num_tokens=encoder.num_tokens + 1)
