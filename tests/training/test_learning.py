"""Tiny image backbones learn: what sets pictures apart goes through their tokens.

A stack whose first weights are too small, or whose first pictures are noise, learns the mean of
all pictures and stays there; one that learns is soon nearer to each picture than that mean.
"""

import pytest
import torch

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.tokenizer import Tokenizer

CORNERS = ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))
COLOURS = ((1.0, 0.6, 0.2), (0.2, 1.0, 0.6), (0.6, 0.2, 1.0), (1.0, 1.0, 1.0))
# backbone -> side of its pictures, steps
CASES = {
    "tiny_cnn2d": (64, 40),
    "tiny_vit2d": (64, 40),
    "tiny_titok": (64, 70),
    "tiny_one_d_piece": (64, 85),
}


def discs(side):
    """Return four pictures ``(4, 3, side, side)``, a disc of another colour in each corner."""
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    masks = [(6 * (0.5 - torch.hypot(x - a, y - b))).tanh() for a, b in CORNERS]
    return torch.stack(
        [m * torch.tensor(c)[:, None, None] for m, c in zip(masks, COLOURS, strict=True)]
    )


@pytest.mark.parametrize("backbone", CASES)
def test_pictures_are_told_apart(backbone):
    side, steps = CASES[backbone]
    torch.manual_seed(0)
    tok = Tokenizer.from_config(tokenizer_config(backbone, "fsq")).train()
    x = discs(side)
    optim = torch.optim.Adam(tok.parameters(), lr=1e-3, betas=(0.9, 0.99))
    errors = []
    for _ in range(steps):
        error = (tok(x).x_hat - x).square().mean()
        optim.zero_grad()
        (100 * error).backward()
        optim.step()
        errors.append(float(error.detach()))
    mean_picture = float((x - x.mean(0)).square().mean())
    assert min(errors[-10:]) < 0.8 * mean_picture
