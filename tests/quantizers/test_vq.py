import math

import pytest
import torch
import vector_quantize_pytorch
from golden import C4, X, close, with_codes

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.quantizers.vq import VectorQuantizer


def ema(codes, **options):
    codes = torch.as_tensor(codes, dtype=torch.float32)
    options = {"decay": 0.9, "restart_threshold": 0.0, "commitment_weight": 1.0, **options}
    head = VectorQuantizer(
        codes.shape[1], codebook_size=codes.shape[0], codebook_update="ema", **options
    )
    return with_codes(head, codes)


def test_golden_euclidean_ema():
    head = ema(C4)
    z = X.clone().requires_grad_()
    out = head(z)
    assert out.indices.flatten().tolist() == [0, 1, 3, 2, 1]
    assert torch.equal(out.z_q, C4[out.indices[..., 0]])
    close(out.terms["commitment"], 0.082)
    close(out.loss, 0.082)
    out.loss.backward()
    expected = [0.04, 0.02, -0.02, 0.06, -0.12, -0.08, 0.02, -0.06, -0.04, -0.02]
    close(z.grad.flatten(), expected)
    head.update(X, out.indices)
    close(head.cluster_size, [1, 1.1, 1, 1])
    close(head.cluster_sum, [[0.02, 0.01], [1.07, 0.02], [0.01, 0.97], [1.94, 1.96]])
    close(head.codebook, [[0.02, 0.01], [0.972728, 0.018182], [0.01, 0.97], [1.939999, 1.96]])


def test_golden_straight_through_and_rotation_gradients():
    for estimator, expected in (
        ("straight_through", [[1.0, 2.0]] * 5),
        (
            "rotation",
            [[1, 2], [0.333333, 2.333333], [1.150442, 2.743362], [1.8, 2.6], [1.538462, 2.307692]],
        ),
    ):
        z = X.clone().requires_grad_()
        out = ema(C4, estimator=estimator)(z).z_q
        assert torch.equal(out.detach(), C4[[0, 1, 3, 2, 1]][None])
        (out * torch.tensor([1.0, 2.0])).sum().backward()
        close(z.grad[0], expected)


def test_golden_cosine():
    half = math.sqrt(0.5)
    head = ema([[1, 0], [half, half], [0, 1], [-1, 0]], metric="cosine")
    out = head(X)
    assert out.indices.flatten().tolist() == [1, 0, 1, 2, 0]
    close(out.terms["commitment"], 0.0245242)
    head.update(X, out.indices)
    close(head.cluster_size, [1.1, 1.1, 1, 0.9])
    close(
        head.codebook,
        [[0.999846, 0.017564], [0.723049, 0.690797], [0.014155, 0.9999], [-1, 0]],
    )


def test_golden_cosine_gradient_codebook():
    half = math.sqrt(0.5)
    head = VectorQuantizer(2, codebook_size=4, metric="cosine")
    out = with_codes(head, [[1, 0], [half, half], [0, 1], [-1, 0]])(X)
    assert out.indices.flatten().tolist() == [1, 0, 1, 2, 0]
    close(out.terms["codebook"], 0.0245242)
    close(head.commitment_weight * out.terms["commitment"], 0.0061310)


def test_golden_mask():
    head = ema([[0, 0], [1, 0], [0, 1], [1, 1]])
    mask = torch.tensor([[True, True, False, True, False]])
    out = head(X, mask)
    assert out.indices.flatten().tolist() == [0, 1, -1, 2, -1]
    assert torch.equal(out.z_q[~mask], torch.zeros(2, 2))
    close(out.loss, 0.0416667)
    head.update(X, out.indices)
    close(head.cluster_size, [1, 1, 1, 0.9])
    close(head.codebook, [[0.02, 0.01], [0.99, 0.03], [0.01, 0.97], [1, 1]], atol=2e-5)


def test_golden_restart_of_dead_codes():
    head = ema([[0, 0], [1, 0], [9, 9], [8, 8]], decay=0.5, restart_threshold=0.5)
    out = head(X)
    head.update(X, out.indices)
    close(head.codebook[:2], [[0.1, 0.266667], [1.025004, 0.450002]])
    close(head.cluster_size[:2], [1.5, 2])
    distances, rows = torch.cdist(head.codebook[2:], X[0]).min(1)
    assert float(distances.max()) < 0.01
    assert len(set(rows.tolist())) == 2


def test_gradient_codebook_learns_from_its_own_term_only():
    head = with_codes(VectorQuantizer(2, codebook_size=4), C4)
    z = X.clone().requires_grad_()
    out = head(z)
    out.z_q.sum().backward(retain_graph=True)
    assert head.codebook.grad is None
    z.grad = None
    out.loss.backward()
    # d codebook / d e_k = 2 sum (e_k - z) / 10
    close(head.codebook.grad, [[-0.04, -0.02], [0.06, -0.04], [-0.02, 0.06], [0.12, 0.08]])
    close(z.grad[0, 0], [0.25 * 0.04, 0.25 * 0.02])


def test_cosine_is_euclidean_on_normalised_latents_and_codes():
    z, codes = torch.randn(3, 7, 5), torch.randn(11, 5)
    cosine = with_codes(VectorQuantizer(5, codebook_size=11, metric="cosine"), codes)
    plain = with_codes(VectorQuantizer(5, codebook_size=11), codes / codes.norm(dim=1)[:, None])
    a, b = cosine(z), plain(z / z.norm(dim=-1, keepdim=True))
    assert torch.equal(a.indices, b.indices)
    torch.testing.assert_close(a.z_q, b.z_q)
    torch.testing.assert_close(a.loss, b.loss)


def test_kmeans_replaces_the_codebook_once_and_keeps_its_scale():
    head = ema(torch.zeros(8, 3), kmeans_init="plusplus", decay=0.99)
    z = torch.randn(4, 100, 3)
    head.update(z, head(z).indices)
    started = head.codebook.clone()
    assert float(head.initialized) == 1
    head.update(z, head(z).indices)
    moved = (head.codebook - started).norm(dim=1) / started.norm(dim=1)
    assert float(moved.max()) < 0.01
    assert float(head(z).terms["commitment"]) < 0.5 * float(z.var())


def test_three_far_codes_are_all_used_within_twenty_steps():
    for update in ("ema", "gradient"):
        head = VectorQuantizer(2, codebook_size=4, codebook_update=update, decay=0.9)
        with_codes(head, [[0, 0], [50, 50], [60, 60], [70, 70]])
        z = torch.randn(1, 200, 2)
        for _ in range(40 if update == "gradient" else 20):
            head.update(z, head(z).indices)
        assert head(z).indices.unique().numel() == 4


def test_counts_converge_to_the_tokens_of_a_batch_in_a_bfloat16_module():
    head = ema(torch.randn(4, 2), decay=0.9).bfloat16()
    z = torch.randn(1, 160, 2)
    for _ in range(150):
        head.update(z, head(z).indices)
    assert float(head.cluster_size.sum()) == pytest.approx(160, rel=1e-4)
    assert head.codebook.dtype == head.cluster_sum.dtype == torch.float32


def test_usage_of_a_toy_mixture():
    head = VectorQuantizer(2, codebook_size=16, codebook_update="ema", decay=0.9)
    centres = 5 * torch.randn(16, 2)
    for _ in range(100):
        z = (centres[torch.randint(16, (256,))] + 0.1 * torch.randn(256, 2))[None]
        head.update(z, head(z).indices)
    assert head.encode(z).unique().numel() >= 15


def test_equal_seeds_give_equal_codebooks():
    books = []
    for _ in range(2):
        torch.manual_seed(3)
        head = VectorQuantizer(3, codebook_size=9, codebook_update="ema", kmeans_init="plusplus")
        for _ in range(5):
            z = torch.randn(2, 30, 3)
            head.update(z, head(z).indices)
        books.append(head.codebook)
    assert torch.equal(*books)


def test_an_unknown_choice_is_named():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, metric="manhattan")
    assert str(error.value) == (
        "VectorQuantizer metric: there is no 'manhattan'; choose one of cosine, euclidean."
    )


def test_a_width_is_required():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(codebook_size=4)
    assert (
        str(error.value)
        == "VectorQuantizer: expected dim or code_dim; got neither. Set one of them."
    )


def test_values_agree_with_vector_quantize_pytorch():
    theirs = vector_quantize_pytorch.VectorQuantize(
        dim=6, codebook_size=20, decay=0.9, rotation_trick=False, commitment_weight=1.0
    )
    codes = torch.randn(20, 6)
    theirs._codebook.embed.data.copy_(codes[None])
    theirs._codebook.embed_avg.data.copy_(codes[None])
    ours = ema(codes)
    z = torch.randn(2, 50, 6)
    for _ in range(3):
        out = ours(z)
        ours.update(z, out.indices)
        quantized, index, loss = theirs(z)
        assert torch.equal(out.indices[..., 0], index)
        torch.testing.assert_close(out.z_q, quantized, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.loss, loss.squeeze())
    torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0])
