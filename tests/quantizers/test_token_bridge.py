import pytest
import torch
from golden import close

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.quantizers.token_bridge import TokenBridge

X = torch.tensor([-6.0, -2.0, -0.4, 0.0, 0.1, 1.0, 3.3, 5.0])[:, None]


@pytest.mark.parametrize(
    ("bits", "indices"),
    [
        (2, [0, 0, 1, 1, 2, 2, 3, 3]),
        (3, [0, 1, 3, 3, 4, 5, 7, 7]),
        (6, [0, 7, 25, 31, 33, 46, 62, 63]),
    ],
)
def test_golden_indices(bits, indices):
    assert TokenBridge(channels=1, bits=bits).encode(X).flatten().tolist() == indices


def test_golden_levels():
    two, three, six = (TokenBridge(channels=1, bits=bits).levels[0] for bits in (2, 3, 6))
    close(two, [-2.100306, -0.541105, 0.541105, 2.100306])
    close(two * 3 / 5, [-1.260183, -0.324663, 0.324663, 1.260183])
    close(three[4:], [0.263294, 0.818916, 1.492307, 2.714942])
    close(
        six[[0, 1, 31, 32, 62, 63]], [-4.061826, -3.323728, -0.032643, 0.032643, 3.323728, 4.061826]
    )
    assert torch.equal(six, -six.flip(0))


def latents():
    """Normal channels of quite different means and deviations."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40_000, 4, generator=generator)
    return z * torch.tensor([0.1, 1.0, 5.0, 30.0]) + torch.tensor([0.0, -3.0, 2.0, 100.0])


def relative_error(head, z):
    return (head(z).z_q - z).square().mean(0) / z.var(0)


@pytest.mark.parametrize("placement", ["gaussian", "lloyd"])
@pytest.mark.parametrize("bits", [1, 3, 6])
def test_fit_makes_every_level_of_every_channel_used(placement, bits):
    head, z = TokenBridge(channels=4, bits=bits, placement=placement), latents()
    head.fit(z)
    counts = torch.stack([column.bincount(minlength=2**bits) for column in head.encode(z).T])
    assert bool((counts > 0).all())
    if placement == "gaussian":
        shares = counts / counts.sum(1, keepdim=True) * 2**bits
        assert 0.5 < float(shares.min()) <= float(shares.max()) < 2.3


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_fitted_levels_beat_uniform_ones(bits):
    z = latents()
    head = TokenBridge(channels=4, bits=bits, placement="lloyd")
    head.fit(z)
    fitted = relative_error(head, z)
    head.fit(z)
    for width in (2.0, 2.5, 3.0, 3.5, 4.0, 5.0):  # of the range, in standard deviations
        steps = ((torch.arange(2**bits) + 0.5) / 2**bits * 2 - 1) * width
        head.levels.copy_(z.mean(0)[:, None] + z.std(0)[:, None] * steps)
        assert bool((fitted < relative_error(head, z)).all())


@pytest.mark.parametrize(
    ("bits", "published"), [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)]
)
def test_the_least_error_is_that_of_max_1960(bits, published):
    """Max, Quantizing for Minimum Distortion, 1960, table I: the unit normal variable."""
    z = torch.special.ndtri((torch.arange(100_000).double() + 0.5) / 100_000).float()[:, None]
    head = TokenBridge(channels=1, bits=bits, placement="lloyd")
    head.fit(z)
    close(relative_error(head, z), [published], atol=2e-3 * published)


def test_levels_of_the_paper_beat_uniform_ones_only_where_they_are_few():
    z, errors = latents(), {}
    for bits in (2, 6):
        head = TokenBridge(channels=4, bits=bits)
        head.fit(z)
        steps = ((torch.arange(2**bits) + 0.5) / 2**bits * 2 - 1) * 3
        ours = relative_error(head, z)
        head.levels.copy_(z.mean(0)[:, None] + z.std(0)[:, None] * steps)
        errors[bits] = (ours / relative_error(head, z)).mean()
    assert float(errors[2]) < 0.75
    assert float(errors[6]) > 3


def test_the_range_before_fit():
    wide, narrow = TokenBridge(channels=1), TokenBridge(channels=1, latent_range=1.0)
    torch.testing.assert_close(wide.levels, 5 * narrow.levels)


def test_fit_survives_saving_and_casting():
    head = TokenBridge(channels=4)
    head.fit(latents())
    twin = TokenBridge(channels=4)
    twin.load_state_dict(head.state_dict(), strict=True)
    assert torch.equal(twin.bfloat16().levels, head.levels)


def test_fit_sees_what_the_search_sees_and_leaves_out_what_is_not_finite():
    torch.manual_seed(0)
    head = TokenBridge(dim=6, channels=4)
    z = torch.randn(5, 10, 6)
    poisoned = torch.cat([z.reshape(-1, 6), torch.full((3, 6), torch.nan)])
    head.fit(z)
    levels = head.levels.clone()
    close(levels.mean(1), head.project_in(z).mean((0, 1)))
    head.fit(poisoned)
    assert torch.equal(head.levels, levels)


def test_a_constant_channel_is_fitted_too():
    z = torch.cat([torch.randn(50, 1), torch.full((50, 1), 7.0)], dim=1)
    for placement in ("gaussian", "lloyd"):
        head = TokenBridge(channels=2, placement=placement)
        head.fit(z)
        assert bool(head.levels.isfinite().all())
        assert float((head(z).z_q[:, 1] - 7).abs().max()) < 0.05


def test_the_order_moves_columns_and_nothing_else():
    z = latents()[:100]
    plain, ordered = TokenBridge(channels=4), TokenBridge(channels=4, order=[2, 0, 3, 1])
    plain.fit(z)
    ordered.fit(z)
    a, b = plain(z), ordered(z)
    assert torch.equal(a.indices[:, [2, 0, 3, 1]], b.indices)
    assert torch.equal(a.z_q, b.z_q)
    assert torch.equal(ordered.decode(b.indices), b.z_q)


def test_the_distortion_is_reported_and_costs_nothing():
    z = latents()
    out = TokenBridge(channels=4)(z)
    close(out.terms["distortion"], (out.z_q - z).square().mean(), atol=1e-3)
    assert float(out.loss) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"bits": 0},
            "TokenBridge: expected 1 to 16 bits; got 0. Every channel has 2**bits levels.",
        ),
        (
            {"bits": 2.5},
            "TokenBridge: expected 1 to 16 bits; got 2.5. Every channel has 2**bits levels.",
        ),
        (
            {"placement": "uniform"},
            "TokenBridge placement: there is no 'uniform'; choose one of gaussian, lloyd.",
        ),
        (
            {"order": [0, 1, 1, 2]},
            "TokenBridge: expected order, a permutation of 0..3; got [0, 1, 1, 2]. "
            "Name each channel once.",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "token_bridge", "channels": 4, **options})
    assert str(error.value) == message


def test_too_few_latents():
    with pytest.raises(DataError) as error:
        TokenBridge(channels=4).fit(torch.full((5, 4), torch.nan))
    assert str(error.value) == (
        "TokenBridge.fit: expected at least two finite latents; got 0. "
        "Pass a tensor (*any, D) of what the encoder makes."
    )
