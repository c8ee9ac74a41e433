"""Decoding probabilities: on every head, one-hot ones decode like their indices."""

import pytest
import torch
from cases import D, all_cases
from torch.nn import functional as F

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.soft import MAX_SIZE

CASES = all_cases()


def make(name):
    torch.manual_seed(1)
    return registry.build("quantizer", CASES[name].config, dim=D).eval()


def dependent(head):
    return head.on_grid or (head.num_codebooks > 1 and not all_additive(head))


def all_additive(head):
    return all(getattr(part, "additive", True) for part in head.modules())


@pytest.mark.parametrize("name", CASES)
def test_one_hot_probabilities_decode_like_their_indices_or_are_refused(name):
    head = make(name)
    title = type(head).__name__
    largest = max(head.codebook_sizes)
    indices = torch.stack([torch.randint(n, (2, 3)) for n in head.codebook_sizes], dim=-1)
    if dependent(head):
        message = (
            f"decode_soft: expected a head whose latents are sums over its codebooks; got {title}, "
            "where a code depends on others or on its place. Decode indices instead."
        )
    elif largest > MAX_SIZE:
        message = (
            f"decode_soft: expected codebooks of at most 262144 codes; got {title} with {largest}. "
            "Decode indices instead."
        )
    else:
        columns = zip(indices.unbind(-1), head.codebook_sizes, strict=True)
        probs = [F.one_hot(column, size).float() for column, size in columns]
        decoded = head.decode_soft(probs[0] if len(probs) == 1 else probs)
        torch.testing.assert_close(decoded, head.decode(indices), atol=2e-5, rtol=1e-4)
        return
    with pytest.raises(ConfigError) as error:
        head.decode_soft([torch.zeros(1).expand(2, n) for n in head.codebook_sizes])
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["vq_projected", "rvq", "group_rvq", "ecsq", "random_projection"])
def test_it_is_the_mean_of_decoded_draws(name):
    head = make(name).requires_grad_(False)
    probs = [torch.softmax(2 * torch.randn(2, n), -1) for n in head.codebook_sizes]
    draws = [torch.multinomial(p, 20_000, replacement=True) for p in probs]
    mean = head.decode(torch.stack(draws, dim=-1)).mean(1)
    spread = head.decode(torch.stack(draws, dim=-1)).std()
    expected = head.decode_soft(probs[0] if len(probs) == 1 else probs)
    assert float((mean - expected).abs().max()) < 0.05 * float(spread)


def test_probabilities_get_a_gradient_and_any_grid():
    head = make("rvq")
    logits = [torch.randn(2, 1, 4, 3, n, requires_grad=True) for n in head.codebook_sizes]
    out = head.decode_soft([torch.softmax(x, -1) for x in logits])
    assert out.shape == (2, 1, 4, 3, D)
    out.square().sum().backward()
    assert all(float(x.grad.abs().sum()) > 0 for x in logits)
    assert head.to(torch.bfloat16).decode_soft([x.detach() for x in logits]).dtype == torch.bfloat16


def test_no_probabilities_give_no_latents():
    assert make("vq").decode_soft(torch.zeros(0, 5, 16)).shape == (0, 5, D)


@pytest.mark.parametrize(
    ("name", "probs", "message"),
    [
        (
            "rvq",
            torch.zeros(2, 16),
            "decode_soft: expected probabilities for 2 codebooks; got 1. "
            "Give a list with one tensor per codebook.",
        ),
        (
            "rvq",
            [torch.zeros(2, 3, 16), torch.zeros(2, 4, 16)],
            "decode_soft: expected floating probabilities of shape (2, 3, 16) for codebook 1; "
            "got torch.float32 (2, 4, 16). The codes go last.",
        ),
        (
            "vq",
            torch.zeros(2, 3, 1, dtype=torch.int64),
            "decode_soft: expected floating probabilities of shape (2, 3, 16) for codebook 0; "
            "got torch.int64 (2, 3, 1). The codes go last.",
        ),
    ],
)
def test_wrong_probabilities_are_named(name, probs, message):
    with pytest.raises(ShapeError) as error:
        make(name).decode_soft(probs)
    assert str(error.value) == message
