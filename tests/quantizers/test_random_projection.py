import pytest
import torch
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.random_projection import RandomProjection
from tokenizers_vq.quantizers.record import without_records


def head(**options):
    torch.manual_seed(0)
    return RandomProjection(12, **{"codebook_size": 32, "projection_dim": 3, **options})


def test_labels_are_the_nearest_directions_of_normalised_projections():
    quantizer = head(codebooks=2)
    z = 3 * torch.randn(40, 12) + 1
    normal = (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    for k, matrix in enumerate(quantizer.projection.split(3, dim=1)):
        cosine = F.normalize(normal @ matrix, dim=1) @ quantizer.codebook[k].T
        assert torch.equal(quantizer.encode(z)[:, k], cosine.argmax(1))


def test_labels_do_not_see_mean_and_scale_of_a_latent():
    quantizer, z = head(), torch.randn(40, 12)
    assert torch.equal(quantizer.encode(z), quantizer.encode(5 * z - 2))


def test_decoded_labels_project_to_their_codes_and_have_mean_zero():
    quantizer = head(codebooks=3)
    indices = torch.randint(32, (50, 3))
    decoded = quantizer.decode(indices)
    codes = torch.cat([quantizer.codebook[k][indices[:, k]] for k in range(3)], dim=1)
    torch.testing.assert_close(decoded @ quantizer.projection, codes, atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded.mean(1), torch.zeros(50), atol=1e-5, rtol=0)
    assert torch.equal(quantizer.encode(decoded), indices)


def test_nothing_learns_and_everything_is_saved():
    quantizer = head()
    assert not list(quantizer.parameters())
    assert not quantizer.has_state
    assert set(without_records(quantizer.state_dict())) == {"projection", "codebook", "inverse"}
    z = torch.randn(5, 12, requires_grad=True)
    out = quantizer(z)
    (out.z_q.sum() + out.loss).backward()
    assert bool((z.grad == 0).all())
    assert float(out.loss.detach()) == 0


def test_matrices_stay_in_float32():
    quantizer = head().to(torch.bfloat16)
    assert {value.dtype for value in quantizer.buffers() if value.numel()} == {torch.float32}


def test_the_scale_of_matrices_and_codes():
    quantizer = RandomProjection(80)
    assert float(quantizer.projection.abs().max()) <= (6 / (80 + 16)) ** 0.5
    torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(1, 8192))


def test_the_width_is_required():
    with pytest.raises(ConfigError) as error:
        RandomProjection()
    assert str(error.value) == "RandomProjection: expected dim, the width of latents; got none."


@pytest.mark.parametrize(
    ("option", "name"), [("projection_dim", "projection_dim"), ("codebooks", "number of codebooks")]
)
def test_sizes_are_positive_whole_numbers(option, name):
    with pytest.raises(ConfigError) as error:
        head(**{option: 0})
    assert str(error.value) == (
        f"RandomProjection: expected a {name} of at least 1; got 0. Give a positive whole number."
    )
