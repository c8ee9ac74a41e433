import pytest
import torch
from golden import close
from torch.nn import functional as F

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.projected import Projected
from tokenizers_vq.quantizers.vq import VectorQuantizer

COSINE = {"name": "vq", "codebook_size": 16, "metric": "cosine"}


def test_the_norm_gives_each_position_mean_0_and_variance_1():
    # (1, 2, 6): mean 3, variance 14/3; below the mean is a negative sign
    head = Projected(inner=LFQ(bits=3))
    out = head(torch.tensor([[1.0, 2.0, 6.0]]))
    assert out.indices.tolist() == [[4]]
    normed = torch.tensor([-2.0, -1.0, 3.0]) / (14 / 3) ** 0.5
    close(out.terms["commitment"], (normed - torch.tensor([-1.0, -1.0, 1.0])).square().mean())


def test_the_scale_of_latents_does_not_matter_to_the_codes_or_the_losses():
    torch.manual_seed(0)
    head = Projected(6, inner=VectorQuantizer(6, codebook_size=16))
    z = torch.randn(3, 5, 6)
    a, b = head(z), head(1000 * z)
    assert torch.equal(a.indices, b.indices)
    torch.testing.assert_close(a.loss, b.loss, atol=1e-4, rtol=1e-4)


def test_the_length_of_a_latent_gets_no_push():
    torch.manual_seed(0)
    head = Projected(6, inner=registry.build("quantizer", COSINE, dim=6))
    z = torch.randn(3, 50, 6, requires_grad=True)
    out = head(z)
    (out.loss + out.z_q.square().mean()).backward()
    along = (z.grad * z.detach()).sum(-1)
    assert float(along.abs().max()) < 1e-4 * float(z.grad.norm(dim=-1).max())


def test_a_hidden_layer_is_the_map_it_says():
    torch.manual_seed(0)
    head = Projected(5, code_dim=3, hidden=7, norm="none", inner=LFQ(bits=3)).eval()
    z = torch.randn(4, 5)
    u = head.map_in[1](F.gelu(head.map_in[0](z)))
    codes = torch.where(u > 0, 1.0, -1.0)
    out = head(z)
    torch.testing.assert_close(out.z_q, head.map_out[1](F.gelu(head.map_out[0](codes))))
    assert [tuple(layer.weight.shape) for layer in head.map_in] == [(7, 5), (3, 7)]


def test_a_config_sets_the_inner_width():
    config = {"name": "projected", "code_dim": 10, "inner": {"name": "lfq", "bits": 10}}
    head = registry.build("quantizer", config, dim=32)
    assert head.inner.project_in is None
    assert [tuple(layer.weight.shape) for layer in head.map_in] == [(10, 32)]
    assert head(torch.randn(2, 4, 32)).z_q.shape == (2, 4, 32)


def test_without_a_map_there_is_nothing_to_learn():
    assert list(Projected(inner=LFQ(bits=3)).parameters()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, "Projected norm: there is no 'batch'; choose one of layer, none."),
        (
            {"norm": "none"},
            "Projected: expected a norm or a hidden width; got neither. "
            "Leave it out: the code_dim of a head is a linear map.",
        ),
        (
            {"hidden": 0},
            "Projected: expected a hidden width of at least 1; got 0. "
            "Give a positive whole number, or null for linear maps.",
        ),
        (
            {"code_dim": 4, "inner": {"name": "lfq", "bits": 3, "dim": 3}},
            "Projected: expected an inner quantizer of width 4; got 3. Set code_dim to that.",
        ),
        (
            {"code_dim": 1, "inner": {"name": "lfq", "bits": 1}},
            "Projected: expected at least 2 channels to normalise; got 1, which would always be "
            "0. Set norm to none.",
        ),
        (
            {"inner": {"repeat": 2, "of": COSINE}},
            "Projected: expected one inner quantizer; got 2 of them. "
            "Give inner a mapping with a name.",
        ),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ConfigError) as error:
        registry.build("quantizer", {"name": "projected", "inner": COSINE, **options}, dim=6)
    assert str(error.value) == message
