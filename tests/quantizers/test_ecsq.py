import math

import pytest
import torch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.ecsq import ECSQ


def test_codes_are_clamped_integers_and_indices_count_from_the_lowest():
    out = ECSQ(channels=3, max_level=2)(torch.tensor([[0.4, -1.6, 9.0]]))
    assert out.z_q.tolist() == [[0, -2, 2]]
    assert out.indices.tolist() == [[2, 0, 4]]


def test_the_rate_is_the_code_length_of_the_chosen_levels():
    head = ECSQ(channels=2, max_level=1)
    head.logits.data = torch.tensor([[0.25, 0.5, 0.25], [0.125, 0.75, 0.125]]).log()
    out = head(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    close(out.terms["rate"], ((1 + 3) + (2 + math.log2(4 / 3))) / 2)
    close(head.probabilities().sum(1), [1, 1])


def test_the_distribution_starts_peaked_at_zero():
    p = ECSQ(channels=2, max_level=4).probabilities()
    assert p.argmax(1).tolist() == [4, 4]
    close(p[:, :4], p[:, 5:].flip(1))


def test_a_latent_feels_the_slope_between_its_neighbours():
    head = ECSQ(channels=1, max_level=3, rate_weight=1.0, overflow_weight=0.0)
    lengths = head.code_lengths().detach()[0]
    for value, low in ((0.3, 3), (-0.3, 2), (2.9, 5), (7.0, 5), (-7.0, 0)):
        z = torch.tensor([[value]], requires_grad=True)
        head(z).loss.backward()
        close(z.grad[0, 0], float(lengths[low + 1] - lengths[low]))


def test_the_distribution_learns_the_data():
    head = ECSQ(channels=1, max_level=2, rate_weight=1.0)
    z = torch.tensor([[-2.0], [0.0], [0.0], [1.0], [1.0], [1.0], [1.0], [2.0]])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        head(z).loss.backward()
        optimizer.step()
    close(head.probabilities()[0], [1 / 8, 0, 2 / 8, 4 / 8, 1 / 8], atol=0.02)


def test_saturated_latents_are_pulled_back_and_keep_the_decoder_gradient():
    head = ECSQ(channels=2, max_level=2, rate_weight=0.0)
    z = torch.tensor([[5.0, -5.0]], requires_grad=True)
    out = head(z)
    out.loss.backward(retain_graph=True)
    assert z.grad.tolist() == [[3.0, -3.0]]  # of the mean of (|z| - 2)^2
    z.grad = None
    out.z_q.sum().backward()
    assert z.grad.tolist() == [[1.0, 1.0]]


def test_noise_replaces_rounding_in_training_only():
    head = ECSQ(channels=4, noise=True)
    z = torch.randn(100, 4)
    noisy = head(z).z_q - z
    assert 0.4 < float(noisy.abs().max()) <= 0.5
    assert torch.equal(head.eval()(z).z_q, z.round())


@pytest.mark.parametrize(("channels", "level"), [(0, 3), (2, 0)])
def test_sizes_out_of_range(channels, level):
    with pytest.raises(ConfigError) as error:
        ECSQ(channels=channels, max_level=level)
    assert str(error.value) == (
        f"ECSQ: expected channels and max_level of at least 1; got {channels}, {level}."
    )
