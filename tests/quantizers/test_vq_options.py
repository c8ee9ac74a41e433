import pytest
import torch
import vector_quantize_pytorch.vector_quantize_pytorch as peer
from golden import C4, X, close, with_codes

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.functional.codebook import affine_map, moments_of_sums, pull_strength
from tokenizers_vq.functional.regularize import assignment_entropies, orthogonality
from tokenizers_vq.functional.sampling import sample_codes
from tokenizers_vq.functional.straight_through import directional, synchronous
from tokenizers_vq.quantizers.vq import VectorQuantizer


def still(codes, **options):
    codes = torch.as_tensor(codes, dtype=torch.float32)
    options = {"restart_threshold": 0.0, **options}
    return with_codes(
        VectorQuantizer(codes.shape[1], codebook_size=codes.shape[0], **options), codes
    )


# DiVeQ --------------------------------------------------------------------------------------------


def test_directional_value_and_gradients_agree_with_vector_quantize_pytorch():
    g = torch.randn(40, 6)
    results = []
    for estimate in (directional, peer.directional_reparam):
        torch.manual_seed(5)
        z, q = torch.randn(40, 6).requires_grad_(), torch.randn(40, 6).requires_grad_()
        out = estimate(z, q)
        out.backward(g)
        results.append((out, z.grad, q.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_directional_goes_as_far_as_the_code_and_nearly_there():
    z, q = torch.randn(500, 6), torch.randn(500, 6)
    out = directional(z, q)
    torch.testing.assert_close((out - z).norm(dim=1), (q - z).norm(dim=1))
    assert float(torch.cosine_similarity(out - z, q - z).mean()) > 0.98
    torch.testing.assert_close(directional(z, q, variance=0.0), q)


def test_directional_is_finite_where_the_latent_is_its_code():
    z = torch.zeros(1, 3, requires_grad=True)
    q = torch.zeros(1, 3, requires_grad=True)
    out = directional(z, q)
    out.sum().backward()
    assert torch.equal(out, z)
    assert bool(torch.isfinite(z.grad).all())
    assert bool(torch.isfinite(q.grad).all())


def test_diveq_teaches_codes_through_the_output_alone():
    torch.manual_seed(0)
    head = still(
        2 + 0.1 * torch.randn(8, 2),
        estimator="diveq",
        restart_threshold=0.05,
        commitment_weight=0.0,
        codebook_weight=0.0,
    )
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    z = torch.randn(1, 400, 2)
    before = float((head.eval()(z).z_q - z).square().mean())
    head.train()
    for _ in range(60):
        out = head(z)
        optimizer.zero_grad()
        ((out.z_q - z).square().mean() + out.loss).backward()
        optimizer.step()
        head.update(z, out.indices)
    assert float((head.eval()(z).z_q - z).square().mean()) < 0.3 * before


def test_diveq_needs_codes_that_learn_and_restart():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, estimator="diveq", codebook_update="ema")
    assert str(error.value) == (
        "VectorQuantizer: expected codebook_update='gradient' with estimator='diveq'; "
        "got 'ema'. Change one of the two."
    )
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, estimator="diveq", restart_threshold=0.0)
    assert str(error.value) == (
        "VectorQuantizer: expected restarts with estimator='diveq'; got restart_threshold=0. "
        "Codes that start far away never learn; set it above 0."
    )
    VectorQuantizer(2, codebook_size=4, estimator="diveq", restart="cvq", restart_threshold=0.0)


# Synchronous update -------------------------------------------------------------------------------


def test_synchronous_has_the_value_of_the_output_and_a_share_of_its_gradient():
    out = torch.randn(50, 3, requires_grad=True)
    q = torch.randn(50, 3, requires_grad=True)
    g = torch.randn(50, 3)
    moved = synchronous(out, q, 0.3)
    moved.backward(g)
    assert torch.equal(moved, out)
    assert torch.equal(out.grad, g)
    torch.testing.assert_close(q.grad, 0.3 * g)


def test_golden_sync_gradient_of_a_codebook():
    head = still(C4, sync_weight=0.5)
    z = X.clone().requires_grad_()
    (head(z).z_q * torch.tensor([1.0, 2.0])).sum().backward()
    close(z.grad, [[[1.0, 2.0]] * 5])
    close(head.codebook.grad, [[0.5, 1], [1, 2], [0.5, 1], [0.5, 1]])  # code 1 has two latents


# Affine map ---------------------------------------------------------------------------------------


def test_moments_are_those_of_the_rows():
    x = 3 + 2 * torch.randn(1000, 4)
    mean, var = moments_of_sums(torch.tensor(1000.0), x.sum(0), x.square().sum(0))
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(var, x.var(0, correction=0), atol=1e-3, rtol=1e-4)


def test_the_affine_map_gives_codes_the_moments_of_latents():
    x, codes = 3 + 2 * torch.randn(200, 4), 0.1 * torch.randn(50, 4) - 1
    scale, shift = affine_map(
        torch.stack([x.mean(0), x.var(0)]), torch.stack([codes.mean(0), codes.var(0)])
    )
    mapped = codes * scale + shift
    torch.testing.assert_close(mapped.mean(0), x.mean(0))
    torch.testing.assert_close(mapped.std(0), x.std(0))


def test_an_affine_codebook_follows_latents_that_drift():
    head = VectorQuantizer(3, codebook_size=32, affine=True, restart_threshold=0.0, decay=0.8)
    for step in range(40):
        z = 0.5 * step + (1 + 0.1 * step) * torch.randn(2, 300, 3)
        head.update(z, head(z).indices)
    codes = head.codes()
    torch.testing.assert_close(codes.mean(0), z.mean((0, 1)), atol=3.0, rtol=0)
    torch.testing.assert_close(codes.std(0), z.std((0, 1)), atol=0, rtol=0.25)
    assert head.encode(z).unique().numel() > 20


def test_an_affine_codebook_starts_at_centroids_and_restarts_at_latents():
    z = 5 + 3 * torch.randn(2, 200, 2)
    head = VectorQuantizer(2, codebook_size=8, affine=True, kmeans_init="plusplus")
    head.update(z, head(z).indices)
    torch.testing.assert_close(head.codes(), head.codebook)  # the map starts as the identity
    assert float(head(z).terms["commitment"]) < 0.3 * float(z.var())
    for _ in range(20):
        head.update(z, head(z).indices)
    with torch.no_grad():
        head.codebook[3:5] = 1e3
    head.cluster_size[3:5] = 0
    head.update(z, head(z).indices)
    nearest = torch.cdist(head.codes().detach()[3:5], z.reshape(-1, 2)).min(1).values
    assert float(nearest.max()) < 0.05


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"codebook_update": "ema"}, "codebook_update='gradient' with affine=True; got 'ema'"),
        ({"metric": "cosine"}, "metric='euclidean' with affine=True; got 'cosine'"),
    ],
)
def test_an_affine_map_needs_a_euclidean_codebook_with_gradient(options, got):
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, affine=True, **options)
    assert str(error.value) == f"VectorQuantizer: expected {got}. Change one of the two."


# Pull to the nearest latent -----------------------------------------------------------------------


def test_golden_pull_strength():
    n = torch.zeros(4096)
    n[1:] = 1.0
    n[1] = 1e-5 * float(n.sum()) / (1 - 1e-5)  # a share of 1e-5 of all choices
    strength = pull_strength(n, 0.99)
    close(strength[0], 0.9990005)
    assert float(strength[1]) < 1e-17
    assert float(strength[2:].max()) == 0


def test_averages_that_never_forget_have_a_finite_pull():
    close(pull_strength(torch.tensor([0.0, 1.0]), 1.0), [0.9990005, 0.0])


def test_unused_codes_are_pulled_to_their_nearest_latent_and_used_ones_stay():
    head = still([[0, 0], [1, 0], [9, 9], [-8, -8]], restart="cvq")
    head.update(X, head(X).indices)
    assert torch.equal(head.codebook[:2], torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    a = 0.9990005
    close(head.codebook[2], [9 + a * (1.4 - 9), 9 + a * (1.6 - 9)])
    close(head.codebook[3], [-8 + a * (0.2 + 8), -8 + a * (0.1 + 8)])


def test_pulled_codes_are_all_used_in_the_end():
    torch.manual_seed(0)
    head = still(6 * torch.randn(16, 2), restart="cvq")
    used = head.encode(torch.randn(1, 400, 2)).unique().numel()
    for _ in range(30):  # the table learns nothing here: only the pull moves it
        z = torch.randn(1, 400, 2)
        head.update(z, head(z).indices)
    assert used <= 6
    assert head.encode(z).unique().numel() >= 12


def test_a_pull_needs_codes_that_learn_by_gradient():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, restart="cvq", codebook_update="ema")
    assert str(error.value) == (
        "VectorQuantizer: expected codebook_update='gradient' with restart='cvq'; got 'ema'. "
        "Change one of the two."
    )


# Orthogonality and entropy ------------------------------------------------------------------------


def test_golden_orthogonality():
    codes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    close(orthogonality(codes), 0.2222222)
    head = still(codes, orthogonal_weight=10.0, commitment_weight=0.0, codebook_weight=0.0)
    out = head(X)
    close(out.loss, 2.222222)
    close(out.terms["orthogonality"], 0.2222222)


def test_orthogonality_agrees_with_vector_quantize_pytorch():
    for codes in (torch.randn(20, 6), torch.randn(3, 8)):
        torch.testing.assert_close(orthogonality(codes), peer.orthogonal_loss_fn(codes[None]))


def test_golden_entropies_of_distances():
    distances = torch.tensor([[0.01, 0.02, 0.05], [0.03, 0.01, 0.04]])
    # Codes on the axes and these rows have those squared distances up to one number per row.
    sample, batch = assignment_entropies(-distances / 2, torch.eye(3), torch.ones(2) > 0, 0.01)
    close(sample, 0.5845344)
    # The reference adds 1e-5 inside the logarithm, which costs that much per code.
    close(batch, 0.7906631 + 3e-5)
    close(sample - batch, -0.2061287 - 3e-5)


def test_entropies_and_gradients_are_those_of_the_whole_matrix():
    x, codes = torch.randn(30, 4).requires_grad_(), torch.randn(9, 4).requires_grad_()
    valid = torch.arange(30) % 5 > 0
    got = assignment_entropies(x, codes, valid, 0.7)
    p = torch.softmax(-(torch.cdist(x, codes) ** 2) / 0.7, dim=1)[valid]
    mean = p.mean(0)
    expected = -(p * p.log()).sum(1).mean(), -(mean * mean.log()).sum()
    torch.testing.assert_close(got, expected)
    for one, other in zip(got, expected, strict=True):
        ours = torch.autograd.grad(one, (x, codes), retain_graph=True)
        theirs = torch.autograd.grad(other, (x, codes), retain_graph=True)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert 0 <= float(got[0].detach()) <= float(got[1].detach()) <= float(torch.tensor(9.0).log())


def test_the_entropy_terms_are_in_the_loss():
    z = torch.randn(1, 50, 3)
    codes = torch.randn(8, 3)
    plain, spread = still(codes), still(codes, entropy_weight=0.3, entropy_temperature=0.5)
    terms = spread(z).terms
    gain = 0.3 * (terms["entropy_sample"] - terms["entropy_batch"])
    torch.testing.assert_close(spread(z).loss - plain(z).loss, gain)


@pytest.mark.parametrize("option", ["sync_weight", "orthogonal_weight"])
def test_weights_of_gradients_need_a_codebook_that_takes_them(option):
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, codebook_update="ema", **{option: 1.0})
    article = "an" if option.startswith("o") else "a"
    assert str(error.value) == (
        f"VectorQuantizer: expected codebook_update='gradient' with {article} {option}; "
        "got 'ema'. Change one of the two."
    )


# Codes drawn at random ----------------------------------------------------------------------------


def test_golden_draws_follow_squared_distances():
    torch.manual_seed(0)
    z = torch.full((100_000, 1), 0.3)
    for codes, share in (([0.0, 1.0], 0.310026), ([0.0, 2.0], 0.0036842)):
        # Under the rule of plain distances the second share would be 0.0573242.
        drawn = sample_codes(z, torch.tensor(codes)[:, None], temperature=0.5)
        assert float(drawn.float().mean()) == pytest.approx(share, abs=0.004)


def test_golden_draws_follow_cosines():
    torch.manual_seed(0)
    cosines = torch.tensor([0.99, 0.98, 0.95, 0.5])
    codes = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=1)
    head = still(codes, metric="cosine", sample_temperature=0.03)
    z = torch.tensor([1.0, 0.0]).expand(1, 100_000, 2)
    out = head(z)
    shares = torch.bincount(out.indices.flatten(), minlength=4) / 100_000
    close(shares, [0.505018, 0.361861, 0.133121, 0], atol=0.006)
    assert bool((head.encode(z) == 0).all())
    assert bool((head.eval()(z).indices == 0).all())


def test_draws_do_not_depend_on_how_the_rows_are_cut():
    z, codes = torch.zeros(2000, 2), torch.randn(8, 2)
    shares = [
        torch.bincount(sample_codes(z, codes, 1.0, chunk=chunk), minlength=8) / 2000
        for chunk in (8, 10**6)
    ]
    torch.testing.assert_close(shares[0], shares[1], atol=0.06, rtol=0)


def test_a_temperature_near_zero_draws_the_nearest():
    z, codes = torch.randn(1, 50, 3), torch.randn(8, 3)
    head = still(codes, sample_temperature=1e-6)
    assert torch.equal(head(z).indices, head.encode(z))


def test_temperatures_below_zero_are_named():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(2, codebook_size=4, sample_temperature=-1.0)
    assert str(error.value) == (
        "VectorQuantizer: expected sample_temperature of 0 or more and entropy_temperature "
        "above 0; got -1.0 and 0.01. Turn entropies off by entropy_weight=0."
    )


def test_two_ways_through_the_output_are_refused():
    with pytest.raises(ConfigError) as error:
        VectorQuantizer(4, codebook_size=8, estimator="diveq", sync_weight=0.5)
    assert str(error.value) == (
        "VectorQuantizer: expected sync_weight=0 with estimator='diveq'; got 0.5. "
        "It teaches the codes through the output already."
    )
    with pytest.raises(ConfigError, match="expected sync_weight in"):
        VectorQuantizer(4, codebook_size=8, sync_weight=2.0)
