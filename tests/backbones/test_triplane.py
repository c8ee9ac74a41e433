import math

import pytest
import torch

from tokenizers_vq.backbones.field import lattice
from tokenizers_vq.backbones.triplane import (
    UNIT,
    TriplaneDecoder,
    TriplaneEncoder,
    divergence,
)
from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.data.synthetic_shapes import SyntheticShapes
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import SignalSpec

SIGNAL = SignalSpec("points", channels=4)


def encoder(**options):
    torch.manual_seed(0)
    options = {"points": 12, "num_tokens": 8, "width": 16, "layers": 2, "heads": 2, **options}
    return TriplaneEncoder(4, SIGNAL, **options).eval()


def tokenizer():
    torch.manual_seed(0)
    small = {"name": "triplane", "num_tokens": 16, "width": 16, "layers": 1, "heads": 2}
    return Tokenizer.from_config({
        "signal": {"kind": "points", "channels": 4}, "dim": 16,
        "encoder": {**small, "points": 24},
        "decoder": {**small, "plane": 4, "doublings": 1, "features": 4, "side": 5},
        "quantizer": read_config("quantizer", "vvq"),
    }).eval()  # fmt: skip


@torch.no_grad()
def test_the_order_of_points_does_not_count():
    x = torch.rand(2, 4, 12) * 2 - 1
    net = encoder()
    torch.testing.assert_close(net(x[..., torch.randperm(12)]), net(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_only_the_samples_nearest_to_the_surface_are_read():
    surface = torch.cat([torch.rand(1, 3, 12), torch.zeros(1, 1, 12)], 1)
    far = torch.cat([torch.rand(1, 3, 30), torch.full((1, 1, 30), -0.2)], 1)
    mixed = torch.cat([far, surface], 2)[..., torch.randperm(42)]
    net = encoder()
    torch.testing.assert_close(net(mixed), net(surface), rtol=1e-4, atol=1e-5)


def test_the_divergence_by_hand():
    one, zero = torch.ones(1), torch.zeros(1)
    assert divergence(one, zero).item() == pytest.approx(0.5)
    assert divergence(zero, math.log(4) * one).item() == pytest.approx((3 - math.log(4)) / 2)


@torch.no_grad()
def test_at_first_latents_and_fields_tell_shapes_apart():
    x = torch.stack([SyntheticShapes(n=8, surface=64, queries=0, seed=1)[i] for i in range(8)])
    tok = tokenizer()

    def share(values):  # of the variance that depends on the shape
        return float(values.var(0).mean() / (values.var(0).mean() + values.mean(0).var()))

    z = tok.encoder(x)
    assert share(z) > 0.2
    assert share(tok.decoder(z)[:, 3]) > 0.2


@torch.no_grad()
def test_at_first_fields_are_smooth():
    torch.manual_seed(0)
    decoder = Tokenizer.from_config(tokenizer_config("tiny_triplane", "vvq")).decoder
    field = decoder(torch.randn(1, 128, 16), points=lattice(33)[None])[0, 3].reshape(33, 33, 33)
    step = field.diff(dim=0).square().mean().sqrt() / field.std()  # a sixteenth
    assert step < 0.35  # it was 0.6


def test_planes_are_read_where_points_project_to():
    decoder = TriplaneDecoder(4, SIGNAL, 8, 16, 1, 2, plane=8, doublings=0, features=3)
    decoder.read = torch.nn.Linear(3, 1, bias=False)
    # features: x on the first plane, y on the second, z on the third, all in their own channel
    planes = torch.zeros(1, 3, 3, 8, 8)
    centres = decoder.centres.reshape(3, 8, 8, 3)
    for axis in range(3):
        planes[0, axis, axis] = centres[axis, ..., axis]
    points = torch.tensor([[[0.3], [-0.5], [0.7]]])
    for axis in range(3):
        with torch.no_grad():
            decoder.read.weight.copy_(torch.eye(3)[axis])
        got = decoder.distances((planes, torch.zeros(1, 8, 12)), points)
        assert got.item() == pytest.approx(UNIT * points[0, axis, 0].item(), abs=1e-6)


@torch.no_grad()
def test_latents_say_what_changes_linearly_around_them():
    decoder = TriplaneDecoder(4, SIGNAL, 8, 16, 1, 2, plane=8, doublings=0, features=3)
    decoder.read = torch.nn.Linear(3, 1)
    torch.nn.init.zeros_(decoder.read.weight)
    torch.nn.init.zeros_(decoder.read.bias)
    # 3 + 2 x - y + 4 z, the same of every latent, given as values at the places and slopes
    slopes = torch.tensor([2.0, -1.0, 4.0])
    rows = torch.zeros(8, 4, 3)
    rows[:, 0, 0], rows[:, 1:, 0] = 3 + decoder.places @ slopes, slopes

    class Given(torch.nn.Module):
        def forward(self, h):
            return rows.flatten(1)[None]

    decoder.to_local = Given()
    planes, made = decoder.field(torch.randn(1, 8, 4))
    points = torch.rand(1, 3, 5) * 2 - 1
    expected = UNIT * (3 + slopes @ points[0])
    torch.testing.assert_close(decoder.distances((planes, made), points)[0, 0], expected)
    made[:, 0, 0] += 1  # one latent says more: by its share
    squares = (points[0].mT[:, None] - decoder.places).square().sum(-1)
    share = (-20 * squares).softmax(-1)[:, 0]
    got = decoder.distances((planes, made), points)[0, 0]
    torch.testing.assert_close(got, expected + UNIT * share)


def test_training_draws_from_the_gaussians_and_evaluation_takes_the_mean():
    tok, x = tokenizer(), torch.rand(2, 4, 24)
    made = tok.encoder.training_pass(tok, x, 0)
    assert made.x_hat.shape == x.shape
    assert torch.equal(made.x_hat[:, :3], x[:, :3])
    mean, log_var = tok.encoder.posterior(x)
    assert made.terms["kl"].item() == pytest.approx(divergence(mean, log_var).item())
    assert 0.05 < (made.z - mean).std() < 0.3  # exp(-4 / 2) = 0.135
    assert torch.equal(tok(x).z, mean)


@torch.no_grad()
def test_decoding_gives_the_field_anywhere():
    tok, x = tokenizer(), torch.rand(2, 4, 24) * 2 - 1
    codes = tok.encode(x)
    assert codes.shape == (24,)
    assert torch.equal(tok.decode(codes, points=x[:, :3], raw=True), tok(x).x_hat)
    everywhere = tok.decode(codes)
    assert everywhere.shape == (2, 4, 125)
    assert torch.equal(everywhere[0, :3], lattice(5))
    one = tok.decode(codes, points=lattice(5)[None, :, 60:61])
    torch.testing.assert_close(one, everywhere[..., 60:61], rtol=1e-4, atol=1e-6)
    coarse = tok.decode(codes, num_codebooks=2)
    assert not torch.equal(coarse, everywhere)


def test_lengths_are_refused():
    with pytest.raises(ConfigError, match="got 'points'"):
        tokenizer().encode(torch.rand(2, 4, 24), lengths=[3, 4])


def test_other_signals_and_latents_are_refused():
    with pytest.raises(ConfigError) as error:
        TriplaneEncoder(4, SignalSpec("points", channels=3))
    assert str(error.value) == (
        "TriplaneEncoder: expected a signal of kind 'points' with 4 channels (x, y, z, distance); "
        "got 'points' with 3. Correct the backbone config."
    )
    decoder = tokenizer().decoder
    with pytest.raises(ShapeError) as error:
        decoder(torch.zeros(1, 3, 16))
    assert str(error.value) == (
        "TriplaneDecoder: expected shape (B, 16, 16); got (1, 3, 16). Latents are channels last."
    )
    with pytest.raises(ShapeError, match="Places are x, y, z"):
        decoder(torch.zeros(1, 16, 16), points=torch.zeros(1, 5, 3))
    with pytest.raises(ConfigError, match="expected a side of 2 or more"):
        TriplaneDecoder(4, SIGNAL, side=1)
    for make in (TriplaneEncoder, TriplaneDecoder):
        with pytest.raises(ConfigError, match="of 1 or more"):
            make(4, SIGNAL, num_tokens=0)
