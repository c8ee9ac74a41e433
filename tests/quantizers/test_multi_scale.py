import pytest
import torch
from golden import close, with_codes
from torch.nn import functional as F

from tokenizers_vq import registry
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.quantizers.grouped import Grouped
from tokenizers_vq.quantizers.lfq import LFQ
from tokenizers_vq.quantizers.multi_scale import MultiScale
from tokenizers_vq.quantizers.residual import Residual
from tokenizers_vq.quantizers.scales import phi_of_scales
from tokenizers_vq.quantizers.vq import VectorQuantizer
from tokenizers_vq.tokenizer import Tokenizer

CODES = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]]
FEATURES = torch.tensor([[[1.2, 0.8], [0.9, -0.5]], [[0.1, 0.2], [0.9, 0.4]]]).movedim(0, -1)[None]


def vq(dim=3, size=16, **options):
    head = VectorQuantizer(dim, codebook_size=size, **options)
    return with_codes(head, torch.randn(size, dim))


def stack(scales=(1, 2, 4), dim=3, **options):
    torch.manual_seed(0)
    return MultiScale(dim, inner=[vq(dim)], scales=scales, **options)


def message(call, error=ConfigError):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_golden():
    inner = with_codes(VectorQuantizer(2, codebook_size=4), CODES)
    head = MultiScale(2, inner=[inner], scales=[1, 2], phi_ratio=0.0)
    out = head(FEATURES)
    assert out.indices[0, :, 0].tolist() == [1, 0, 0, 2, 3]
    close(out.z_q[0, ..., 0].flatten(), [1, 1, 1, 0])
    close(out.z_q[0, ..., 1].flatten(), [0, 0, 1, 0.5])
    first = torch.tensor([1.0, 0.0])  # the sum after one scale, at each position
    close(out.terms["commitment/0"], float((FEATURES - first).square().mean()))
    close(out.terms["commitment/1"], float((FEATURES - out.z_q).square().mean()))


def test_the_loss_is_that_of_the_sums_so_far():
    quiet = vq(commitment_weight=0.0, codebook_weight=0.0)
    head = MultiScale(3, inner=[quiet], scales=[1, 2, 4])
    z = torch.randn(2, 4, 4, 3)
    out = head(z)
    sums = [head.decode(head.prefix(out.indices, count)) for count in (1, 2, 3)]
    errors = [float((z - total).square().mean().detach()) for total in sums]
    close(out.loss, 1.25 * sum(errors) / 3)


def test_ten_scales_share_four_convolutions():
    assert phi_of_scales(10, 4) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert phi_of_scales(1, 1) == [0]
    for scales in range(1, 15):
        for convs in range(1, scales + 1):
            assert set(phi_of_scales(scales, convs)) == set(range(convs)), (scales, convs)


def test_phi_mixes_a_convolution_in():
    head = stack(scales=[4], phi=1, phi_ratio=0.25)
    indices = torch.randint(16, (2, 16, 1))
    codes = F.embedding(indices[..., 0], head.inner[0].codebook).mT.reshape(2, 3, 4, 4)
    conv = F.conv2d(codes, head.phi[0].weight, head.phi[0].bias, padding=1)
    expected = 0.75 * codes + 0.25 * conv
    torch.testing.assert_close(head.decode(indices).movedim(-1, 1), expected)


def test_one_scale_without_phi_is_the_inner_head():
    inner = vq()
    head = MultiScale(3, inner=[inner], scales=[4], phi=0)
    z = torch.randn(2, 4, 4, 3)
    a, b = head(z), inner(z)
    assert torch.equal(a.indices, b.indices.flatten(1, 2))
    assert torch.equal(a.z_q, b.z_q)
    assert head(z[:, :1, :1]).indices.shape == (2, 1, 1)


def test_scales_of_other_grids_are_proportional():
    head = stack(scales=[1, 2, 3, 4, 5, 6, 8, 10, 13, 16])
    assert head.token_count((16, 16)) == 680
    half = [side for side, _ in head.scale_grids((8, 8))]
    assert half == [1, 1, 2, 2, 3, 3, 4, 5, 7, 8]
    assert head.scale_grids((16, 32))[2] == (3, 6)
    assert head.scale_grids((1, 1)) == [(1, 1)] * 10


def test_scales_of_video_have_a_side_per_axis():
    head = stack(scales=[[1, 1, 1], [2, 3, 3], [4, 6, 6]])
    assert head.axes == 3
    assert head.scale_grids((2, 6, 3)) == [(1, 1, 1), (1, 3, 2), (2, 6, 3)]
    assert stack(scales=[1, 4], axes=1)(torch.randn(2, 4, 3)).indices.shape == (2, 5, 1)


def test_every_scale_commits():
    head = stack()
    z = torch.randn(2, 4, 4, 3, requires_grad=True)
    with_grad = [f"commitment/{i}" for i in range(3)]
    assert set(with_grad) <= head(z).terms.keys()
    (gradient,) = torch.autograd.grad(head(z).loss, z)
    assert float(gradient.abs().min()) > 0


def test_the_output_does_not_train_codes_but_the_loss_does():
    head = stack()
    out = head(torch.randn(2, 4, 4, 3, requires_grad=True))
    out.z_q.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in head.parameters())
    out.loss.backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in head.parameters())


def test_a_scale_factor_divides_the_input_and_multiplies_the_code():
    head = MultiScale(inner=[LFQ(bits=3)], scales=[1, 2], phi=0, scale_factor=0.5)
    z = torch.randn(2, 2, 2, 3)
    out = head(z)
    codes = head.lookup(out.indices)
    assert codes[:, :1].abs().unique().tolist() == [1.0]
    assert codes[:, 1:].abs().unique().tolist() == [0.5]
    first = (z.mean((1, 2), keepdim=True) > 0).float() * 2 - 1
    second = ((z - first > 0).float() * 2 - 1) * 0.5
    torch.testing.assert_close(out.z_q, first + second)


def test_dropped_scales_have_no_index_no_output_and_no_update():
    head = stack(scale_dropout=1.0, min_scales=2)
    z = torch.randn(64, 4, 4, 3)
    out = head(z)
    depth = (out.indices[..., 0] >= 0).sum(1)
    assert set(depth.tolist()) == {1 + 4, 1 + 4 + 16}
    torch.testing.assert_close(head.decode(out.indices), out.z_q)
    head.update(z, out.indices)
    counted = (float(head.inner[0].cluster_size.sum()) - 0.99 * 16) / 0.01
    assert counted == pytest.approx(int(depth.sum()), abs=0.2)
    assert bool((head.eval()(z).indices >= 0).all())


def test_a_prefix_decodes_to_the_sum_of_its_scales():
    head = stack()
    indices = head.encode(torch.randn(2, 4, 4, 3))
    part = head.prefix(indices, 2)
    assert (part[..., 0] >= 0).sum(1).tolist() == [5, 5]
    assert torch.equal(part[:, :5], indices[:, :5])
    assert torch.equal(head.prefix(indices, 3), indices)
    assert not torch.equal(head.decode(part), head.decode(indices))
    assert message(lambda: head.prefix(indices, 4), ShapeError) == (
        "prefix: expected 1 to 3 scales; got 4. Ask for scales that exist."
    )


def test_inputs_of_a_next_scale_model():
    head = stack()
    indices = head.encode(torch.randn(2, 4, 4, 3))
    inputs = head.next_scale_inputs(indices)
    assert inputs.shape == (2, 20, 3)
    for count, start, sides in ((1, 0, 2), (2, 4, 4)):
        total = head.decode(head.prefix(indices, count)).movedim(-1, 1)
        expected = F.adaptive_avg_pool2d(total, sides).flatten(2).mT
        torch.testing.assert_close(inputs[:, start : start + sides**2], expected)
    ahead = head.next_scale_inputs(head.prefix(indices, 1))
    assert torch.equal(ahead[:, :4], inputs[:, :4])


def test_the_update_of_a_shared_head_sees_the_tokens_of_all_scales():
    inner = vq(codebook_update="ema", decay=0.0, restart_threshold=0.0)
    head = MultiScale(3, inner=[inner], scales=[1, 2, 4], phi=0)
    z = torch.randn(5, 4, 4, 3)
    out = head(z)
    head.update(z, out.indices)
    counts = torch.bincount(out.indices.flatten(), minlength=16).float()
    assert torch.equal(inner.cluster_size, counts)
    assert float(inner.updates) == 1


def test_heads_of_their_own_see_their_scale_only():
    options = {"codebook_update": "ema", "decay": 0.0, "restart_threshold": 0.0}
    head = MultiScale(3, inner=[vq(**options) for _ in range(3)], scales=[1, 2, 4])
    z = torch.randn(5, 4, 4, 3)
    head.update(z, head(z).indices)
    assert [float(part.cluster_size.sum()) for part in head.inner] == [5, 20, 80]


def test_kmeans_starts_heads_of_their_own_on_their_residuals():
    options = {"codebook_size": 8, "codebook_update": "ema", "kmeans_init": "plusplus"}
    inner = [VectorQuantizer(3, **options) for _ in range(2)]
    head = MultiScale(3, inner=inner, scales=[4, 4], phi=0)
    z = torch.randn(20, 4, 4, 3)
    head.update(z, head(z).indices)
    terms = head(z).terms
    assert 0.5 > float(terms["commitment/0"]) > float(terms["commitment/1"])


def test_a_token_with_a_latent_that_is_not_finite_is_left_out_of_statistics():
    inner = vq(codebook_update="ema", decay=0.0, restart_threshold=0.0)
    head = MultiScale(3, inner=[inner], scales=[1, 2, 4])
    z = torch.randn(2, 4, 4, 3)
    z[0, 0, 0] = torch.nan
    head.update(z, head(z).indices)
    assert float(inner.cluster_size.sum()) == 2 * 21 - 3
    assert float(inner.nonfinite) == 1


@pytest.mark.parametrize("name", ["var", "ms_lfq", "ms_bsq"])
def test_codes_of_a_tokenizer_survive_compression(name):
    config = {**read_config("backbone", "tiny_cnn2d"), "quantizer": read_config("quantizer", name)}
    tokenizer = Tokenizer.from_config(config).eval()
    x = torch.rand(2, 3, 32, 24) * 2 - 1
    codes = tokenizer.encode(x)
    head = tokenizer.quantizer
    assert codes.indices.shape == (2, head.token_count((4, 3)), head.num_codebooks)
    assert torch.equal(tokenizer.decompress(tokenizer.compress(x)), tokenizer.decode(codes))
    close(tokenizer.decode(codes), tokenizer(x).x_hat.clamp(-1, 1), atol=1e-5)


def test_bare_indices_decode_on_the_base_grid():
    head = stack()
    assert head.decode(torch.zeros(2, 21, 1, dtype=torch.int64)).shape == (2, 4, 4, 3)
    assert head.latent_grid((21,)) == (4, 4)
    assert message(lambda: head.latent_grid((22,)), ShapeError) == (
        "MultiScale: expected 21 tokens, those of latents on (4, 4); got (22,). "
        "Say which grid the latents have: decode(indices, grid)."
    )
    indices = torch.zeros(2, 21, 1, dtype=torch.int64)
    assert message(lambda: head.decode(indices, (8, 8)), ShapeError) == (
        "decode: expected indices of shape (B, 84, 1) for latents on (8, 8); got (2, 21, 1). "
        "Pass the grid of the latents they were made from."
    )


def test_another_rank_is_refused():
    assert message(lambda: stack()(torch.zeros(2, 5, 3)), ShapeError) == (
        "MultiScale: expected latents on a grid of rank 2 with at least 1 position per axis; "
        "got (5,). Reshape them, or set the head's axes."
    )


def test_an_update_with_other_indices_is_named():
    head, z = stack(), torch.zeros(2, 4, 4, 3)
    indices = torch.zeros(2, 20, 1, dtype=torch.int64)
    assert message(lambda: head.update(z, indices), ShapeError) == (
        "update: expected indices of shape (2, 21, 1); got (2, 20, 1). "
        "Pass the z and the indices of the same forward."
    )


@pytest.mark.parametrize("scales", [[], [4, 2], [0, 1], [1.5, 2], [[1, 2], [2, 2, 2]], [[1] * 4]])
def test_scales_that_are_none_are_refused(scales):
    assert message(lambda: stack(scales=scales)) == (
        f"MultiScale: expected scales of 1 to 3 axes that never shrink; got {scales} with axes "
        "None. List them from coarse to fine, e.g. [1, 2, 4]."
    )


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("phi", -1, "0..1000000"), ("phi_ratio", 2.0, "0..1"), ("scale_dropout", -0.1, "0..1"),
     ("min_scales", 4, "1..3")],
)  # fmt: skip
def test_options_out_of_range_are_refused(option, value, allowed):
    assert message(lambda: stack(**{option: value})) == (
        f"MultiScale: expected {option} in {allowed}; got {value}. Correct it."
    )


def test_a_scale_factor_is_positive():
    assert message(lambda: stack(scale_factor=0)) == (
        "MultiScale: expected a scale_factor above 0; got 0. Correct it."
    )


def test_inner_heads_that_do_not_fit_are_refused():
    assert message(lambda: MultiScale(3, inner=[vq(), vq()], scales=[1, 2, 4])) == (
        "MultiScale: expected 1 inner head or 3, one per scale; got 2. "
        "Give one to share, or one for each."
    )
    assert message(lambda: MultiScale(4, inner=[vq()], scales=[1, 2])) == (
        "MultiScale: expected inner heads of width 4; got [3]. Give each that dim, or set code_dim."
    )
    assert message(lambda: MultiScale(3, inner=[vq(), vq(size=8)], scales=[1, 2])) == (
        "MultiScale: expected inner heads with the same codebook sizes; got [(16,), (8,)]. "
        "Tokens of all scales share one table."
    )


@pytest.mark.parametrize("outer", [Residual, Grouped, MultiScale])
def test_no_part_of_another_head_depends_on_its_place(outer):
    options = {
        Residual: {"stages": [stack()]},
        Grouped: {"groups": [stack()]},
        MultiScale: {"inner": [stack()], "scales": [1, 2]},
    }
    assert message(lambda: outer(3, **options[outer])) == (
        f"{outer.__name__}: expected parts that quantize each position by itself; got MultiScale. "
        "Make that the outermost head."
    )


def test_it_is_built_from_plain_data():
    config = {"name": "multi_scale", "scales": [1, 2], "code_dim": 4,
              "inner": {"repeat": 2, "of": {"name": "vq", "codebook_size": 8}}}  # fmt: skip
    head = registry.build("quantizer", config, dim=6)
    assert [part.dim for part in head.inner] == [4, 4]
    assert head(torch.randn(1, 2, 2, 6)).z_q.shape == (1, 2, 2, 6)


def test_scales_see_what_wrong_bits_left_over():
    torch.manual_seed(0)
    inner = Grouped(4, groups=[LFQ(bits=2, flip_rate=1.0, entropy_weight=0.0) for _ in range(2)])
    head = MultiScale(4, inner=inner, scales=[1, 2, 4], phi=0)
    z = torch.randn(8, 4, 4, 4)
    out = head(z)
    assert not torch.equal(out.z_q, head.decode(out.indices))
    first = head.encode(z)[:, :1]
    assert torch.equal(out.indices[:, :1], first)  # the right ones
    assert not torch.equal(out.indices[:, 1:], head.encode(z)[:, 1:])  # of other residuals
    head.eval()
    assert torch.equal(head(z).z_q, head.decode(head.encode(z)))


@pytest.mark.parametrize(
    "options",
    [
        {"name": "gumbel", "codebook_size": 8},
        {"name": "dithered_fsq", "levels": [3, 3, 3, 3]},
        {"name": "fsp", "levels": [3, 3, 3, 3]},
        {"name": "ecsq", "channels": 4, "noise": True},
        {"name": "vq", "codebook_size": 8, "sample_temperature": 0.1},
        {"name": "rotated", "inner": {"name": "gumbel", "codebook_size": 8}},
    ],
)
def test_noise_that_would_not_be_seen_is_refused(options):
    config = {"name": "multi_scale", "inner": options, "scales": [1, 2]}
    text = message(lambda: registry.build("quantizer", config, dim=4))
    assert text.startswith("MultiScale: expected inner heads without noise in training; got ")


def test_a_shared_head_is_searched_once_per_scale(monkeypatch):
    head = stack()
    calls, search = [], VectorQuantizer.code_indices
    monkeypatch.setattr(
        VectorQuantizer, "code_indices", lambda self, u: calls.append(u) or search(self, u)
    )
    head(torch.randn(2, 4, 4, 3))
    assert len(calls) == 3
