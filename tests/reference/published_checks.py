"""What every import must do, whichever family it is."""

import pytest
import torch

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published import from_published


def picture(*shape, seed=1):
    """Smooth random pictures in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(shape[0], 3, 5, 7, generator=generator) * 2 - 1
    smooth = torch.nn.functional.interpolate(small, size=shape[1:], mode="bicubic")
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)


def close(ours, theirs, bound=1e-4):
    """Whether the largest error is within the bound, relative to the largest reference value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max()) <= bound * float(theirs.abs().max())


@torch.no_grad()
def compare(family, state, config, x, made):
    """Import and compare indices, latents, quantized latents and unclamped pictures."""
    tok = from_published(family, state, config)
    assert not tok.training
    codes = tok.encode(x)
    theirs = made.indices.reshape(codes.indices.shape)
    assert (codes.indices == theirs).all()
    assert close(tok.encoder(x).movedim(-1, 1), made.latents)
    grid = tok.encoder.grid(x.shape[2:])
    assert close(tok.quantizer.decode(codes.indices, grid).movedim(-1, 1), made.quantized)
    assert close(tok.decode(codes, raw=True), made.picture)
    assert tok.decode(codes).abs().max() <= 1
    return tok


def message(family, state, config=None, error=CheckpointError, **options):
    """Return the first line of the error that an import raises."""
    with pytest.raises(error) as caught:
        from_published(family, state, config, **options)
    return str(caught.value).splitlines()[0]


def check_strictness(family, state, config, *, key, shown=None):
    """A missing, an unexpected and a cut tensor are named; ``shown`` is what we call ``key``."""
    shown = shown or key
    where = f"from_published('{family}')"
    without = {name: value for name, value in state.items() if name != key}
    found = message(family, without, config)
    assert found.startswith(f"{where}: expected the ")
    assert found.endswith(
        f"got 1 missing and 0 unexpected (first: {shown}). Pass the constructor values of the "
        "published model as config."
    )
    assert message(family, {**state, "surprise.weight": torch.zeros(1)}, config) == (
        f"{where}: expected only keys of this family; got 1 others (first: surprise.weight). "
        "Is it a checkpoint of another family?"
    )
    cut = {**state, key: state[key][:-1]}
    assert message(family, cut, config) == (
        f"{where}: expected {shown} of shape {tuple(state[key].shape)}; got "
        f"{tuple(cut[key].shape)}. Pass the constructor values of the published model as config."
    )
