"""What a head says to mistakes: wrong inputs, wrong options, a forgotten update."""

import warnings
from pathlib import Path

import pytest
import torch
from cases import CONTINUOUS
from making import HEADS, D, at, heads, latents, make

from tokenizers_vq import registry
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError, ShapeError


@heads
def test_wrong_inputs_are_named(name):
    head, grid = make(name), at(name, 3)
    title = type(head).__name__
    cases = [
        (
            lambda: head(torch.zeros(8, D + 1, 16, 16)),
            f"{title}: expected z of shape (B, *grid, {D}); got (8, {D + 1}, 16, 16). "
            "Channels go last; did you forget 'b d h w -> b h w d'?",
        ),
        (
            lambda: head.encode(torch.zeros(2, D, dtype=torch.int64)),
            f"{title}: expected z of a floating dtype; got torch.int64. Call .float().",
        ),
        (
            lambda: head(torch.zeros(2, *grid, D), torch.ones(2, 4, dtype=torch.bool)),
            f"{title}: expected a bool mask of shape {(2, *grid)}; got torch.bool (2, 4). "
            "True marks the positions that count.",
        ),
        (
            lambda: head.decode(torch.zeros(2, 3, head.num_codebooks)),
            "decode: expected int64 indices; got torch.float32. Call .long().",
        ),
        (
            lambda: head.decode(
                torch.full((2, head.num_codebooks), head.codebook_sizes[0], dtype=torch.int64)
            ),
            f"decode: index {head.codebook_sizes[0]} in codebook 0 is outside "
            f"0..{head.codebook_sizes[0] - 1}.",
        ),
        (
            lambda: head.lookup(torch.full((2, head.num_codebooks), -2)),
            f"lookup: index -2 in codebook 0 is outside 0..{head.codebook_sizes[0] - 1}.",
        ),
        (
            lambda: head.decode(torch.zeros(2, head.num_codebooks + 1, dtype=torch.int64)),
            f"decode: expected shape (*grid, {head.num_codebooks}); "
            f"got (2, {head.num_codebooks + 1}). The last axis is the codebook axis K.",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ShapeError) as error:
            call()
        assert str(error.value).splitlines()[0] == message


@pytest.mark.parametrize("name", ["vq", "vq_ema", "factorized", "simvq"])
@pytest.mark.parametrize("size", [0, -1, 2.5, "many"])
def test_a_codebook_size_below_one_is_named(name, size):
    config = {**HEADS[name], "codebook_size": size}
    title = type(make(name)).__name__
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", config, dim=D)
    assert str(error.value) == (
        f"{title}: expected a codebook_size of at least 1; got {size!r}. "
        "Give a positive whole number."
    )


@heads
def test_a_width_below_one_is_named(name):
    with pytest.raises(ConfigError):
        registry.build("quantizer", HEADS[name], dim=-1)


def test_an_update_with_other_indices_is_named():
    head = make("vq_ema")
    with pytest.raises(ShapeError) as error:
        head.update(torch.zeros(2, 3, D), torch.zeros(2, 4, 1, dtype=torch.int64))
    assert str(error.value) == (
        "update: expected indices of shape (2, 3, 1); got (2, 4, 1). "
        "Pass the z and the indices of the same forward."
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [("vq_ema", "VectorQuantizer"), ("rvq", "Residual"), ("qinco_beam", "QINCo")],
)
def test_a_forgotten_update_warns_once(name, title):
    head = make(name)
    z = torch.randn(1, 2, D)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(250):
            head(z)
    assert [str(warning.message) for warning in caught] == [
        f"{title}: 100 training steps without update(); codebooks start from k-means, follow "
        "averages and restart only there. "
        "Call quantizer.update(z, out.indices) after optimizer.step()."
    ]


@pytest.mark.parametrize("name", ["vq", "vq_ema", "fsq"])
def test_no_warning_where_nothing_was_forgotten(name):
    head = make(name)
    z = torch.randn(1, 2, D)
    for i in range(150):
        out = head(z)
        if i % 50 == 0:
            head.update(z, out.indices)


CODED = [
    n for n in config_names("quantizer") if read_config("quantizer", n)["name"] not in CONTINUOUS
]


@pytest.mark.parametrize("name", CODED)
def test_the_comment_of_a_config_says_its_bits(name):
    head = registry.build("quantizer", read_config("quantizer", name), dim=64)
    path = Path(__file__).resolve().parents[2] / "conf" / "quantizer" / f"{name}.yaml"
    first = path.read_text().splitlines()[0]
    bits = f"{head.bits_per_position:.2f}".rstrip("0").rstrip(".")
    assert first.startswith("# ")
    assert f", {bits} bits" in first
    codes = f"{head.codebook_sizes[0]:,} codes"
    count = "" if head.num_codebooks == 1 else f"{head.num_codebooks} x "
    assert first.startswith(f"# {count}{codes}")


def weights_of(head):
    """Return the loss weights of a head and of its parts, by path."""
    return {
        f"{path}.{name}": (part, name)
        for path, part in head.named_modules()
        for name, value in vars(part).items()
        if name.endswith("_weight") and isinstance(value, float)
    }


@heads
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_a_loss_weight_that_is_none_is_named_whenever_it_is_set(name, value):
    for part, option in weights_of(make(name)).values():
        with pytest.raises(ConfigError) as error:
            setattr(part, option, value)
        assert str(error.value) == (
            f"{type(part).__name__}: expected {option} to be finite and at least 0; "
            f"got {value!r}. 0 turns its term off."
        )


@heads
def test_terms_without_a_weight_do_not_change_the_loss(name):
    head = make(name)
    for part, option in weights_of(head).values():
        setattr(part, option, 0.0)
    if not hasattr(head, "moment_weights"):
        assert float(head(latents(name, 2, 5)).loss.detach()) == 0
