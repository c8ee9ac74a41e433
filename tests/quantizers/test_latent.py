import pytest
import torch
from golden import close

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.latent import LatentQuantizer

X = torch.tensor([[0.1, 0.2], [-0.3, 0.4], [0.6, -0.9]])


def learned(levels=(5, 4, 3)):
    """A head whose values have moved, also past each other."""
    torch.manual_seed(0)
    head = LatentQuantizer(levels=levels)
    head.values.data = torch.randn_like(head.values)
    return head


def test_golden():
    out = LatentQuantizer(levels=(5, 4))(X)
    assert out.indices.flatten().tolist() == [17, 16, 4]
    assert out.z_q.tolist() == [[0, 0.25], [-0.25, 0.25], [0.5, -0.5]]
    close(out.loss, 0.0069167)


def test_values_start_evenly_spaced():
    assert LatentQuantizer(levels=(5, 4)).table().tolist() == [
        [-0.5, -0.25, 0, 0.25, 0.5],
        [-0.5, -0.25, 0, 0.25, torch.inf],
    ]


def test_every_index_is_its_own_code_after_learning():
    head = learned().eval()
    indices = torch.arange(60)[:, None]
    assert torch.equal(head.encode(head.decode(indices)), indices)


def test_decoding_gives_the_learned_values_and_no_other_is_nearer():
    head, z = learned(), torch.randn(400, 3)
    out = head(z)
    assert torch.equal(head.decode(out.indices), out.z_q)
    codes = head.decode(torch.arange(60)[:, None])
    best = (z[:, None] - codes[None]).square().sum(-1).argmin(1)
    assert torch.equal(out.indices[:, 0], best)


def test_latent_and_values_pull_each_other_with_their_own_weights():
    head = LatentQuantizer(levels=(5, 4), commitment_weight=2.0, codebook_weight=3.0)
    z = X.clone().requires_grad_()
    out = head(z)
    out.loss.backward()
    rest = 2 * (X - out.z_q.detach()) / 6  # the mean is over three tokens and two channels
    close(z.grad, 2 * rest)
    grad = torch.zeros_like(head.table())
    for token, digits in enumerate([(2, 3), (1, 3), (4, 0)]):
        for channel, digit in enumerate(digits):
            grad[channel, digit] -= 3 * rest[token, channel]
    close(head.values.grad, torch.cat([grad[0], grad[1, :4]]))


def test_values_learn_the_data():
    head = LatentQuantizer(levels=(3,), codebook_weight=1.0)
    z = torch.tensor([[-2.0], [-1.9], [-0.1], [0.1], [4.0], [4.2]])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        head(z).loss.backward()
        optimizer.step()
    close(head.values, [-1.95, 0, 4.1], atol=0.02)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((8, 1), "LatentQuantizer: levels must be at least 2 each; got (8, 1)."),
        (
            (8,) * 21,
            "LatentQuantizer: expected a product of sizes below 2**63; got 2**63.0. "
            "Keep one index per codebook instead of packing them.",
        ),
    ],
)
def test_errors(levels, message):
    with pytest.raises(ConfigError) as error:
        LatentQuantizer(levels=levels)
    assert str(error.value) == message
