"""The upkeep of learned codes beside that of the package most people use, where both are right."""

import pytest
import torch
import vector_quantize_pytorch
import vector_quantize_pytorch.vector_quantize_pytorch as peer
from golden import C4, X, close, with_codes
from torch.nn import functional as F

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.codebook import kmeans
from tokenizers_vq.functional.straight_through import rotate_to
from tokenizers_vq.quantizers.vq import VectorQuantizer


def test_a_cosine_codebook_follows_its_data_as_theirs_does():
    theirs = vector_quantize_pytorch.VectorQuantize(
        dim=6, codebook_size=20, decay=0.9, use_cosine_sim=True, rotation_trick=False
    )
    codes = F.normalize(torch.randn(20, 6), dim=-1)
    theirs._codebook.embed.data.copy_(codes[None])
    theirs._codebook.embed_avg.data.copy_(codes[None])
    ours = VectorQuantizer(
        6,
        codebook_size=20,
        codebook_update="ema",
        metric="cosine",
        decay=0.9,
        commitment_weight=1.0,
        restart_threshold=0.0,
    )
    with_codes(ours, codes)
    z = torch.randn(2, 50, 6)
    for _ in range(3):
        out = ours(z)
        ours.update(z, out.indices)
        quantized, index, loss = theirs(z)
        assert torch.equal(out.indices[..., 0], index)
        torch.testing.assert_close(out.z_q, quantized, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.loss, loss.squeeze())
    torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0])


def test_rotated_gradients_are_theirs_away_from_zero():
    q, g = torch.randn(50, 6), torch.randn(50, 6)
    grads = []
    for rotate in (rotate_to, peer.rotate_to):
        torch.manual_seed(0)
        z = torch.randn(50, 6, requires_grad=True)
        rotate(z, q).backward(g)
        grads.append(z.grad)
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_kmeans_rebuilds_as_well_as_theirs():
    torch.manual_seed(0)
    x = torch.cat([centre + 0.3 * torch.randn(50, 3) for centre in 4 * torch.randn(12, 3)])
    codes, counts = kmeans(x, 12, iterations=10)
    their_codes, their_counts = peer.kmeans(x[None], 12, num_iters=10)
    assert codes.shape == their_codes[0].shape
    assert counts.shape == their_counts[0].shape
    assert float(counts.sum()) == float(their_counts.sum()) == 600
    ours, theirs = (torch.cdist(x, table).min(1).values.mean() for table in (codes, their_codes[0]))
    assert float(ours) < 1.2 * float(theirs)


def test_golden_of_averages_that_do_not_belong_together_is_not_ours():
    head = VectorQuantizer(
        2, codebook_size=4, codebook_update="ema", decay=0.9, restart_threshold=0.0
    )
    with_codes(head, C4)
    head.update(X, head(X).indices)
    # With counts from 0 and sums from the codes, code 1 would be at (5.35, 0.1).
    close(head.codebook[1], [0.972728, 0.018182])
    assert float((head.codebook - C4).norm(dim=1).max()) < 0.1
    with_codes(head, C4, cluster_size=[1.0, 1.0, 1.0, 1.0])
    head.cluster_size.zero_()
    head.update(X, head(X).indices)
    wrong = [
        [0.199996, 0.099998],
        [5.35016, 0.100003],
        [0.099998, 9.699806],
        [19.399612, 19.599607],
    ]
    close(head.codebook, wrong, atol=1e-3)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("restart", "cvq, random"),
        ("kmeans_init", "none, plusplus, random"),
        ("codebook_update", "ema, gradient"),
        ("estimator", "diveq, rotation, straight_through"),
    ],
)
def test_an_unknown_choice_is_named(option, choices):
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, **{option: "other"})
    assert str(error.value) == (
        f"VectorQuantizer {option}: there is no 'other'; choose one of {choices}."
    )


@pytest.mark.parametrize("options", [{"decay": 2.0}, {"decay": "0.9"}, {"restart_threshold": -1}])
def test_shares_out_of_range_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(4, codebook_size=8, **options)
    assert str(error.value) == (
        f"VectorQuantizer: expected {name} in 0..1; got {value!r}. It is a probability or share."
    )


@pytest.mark.parametrize(
    "options", [{"kmeans_init": "random"}, {"affine": True}, {"restart": "cvq"}]
)
def test_what_only_update_does_is_asked_for(options):
    assert VectorQuantizer(4, codebook_size=8, **options).learns_by_update
    assert not VectorQuantizer(4, codebook_size=8).learns_by_update
