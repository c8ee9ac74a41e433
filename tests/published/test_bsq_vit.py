"""Importers of BSQ-ViT and ViT-VQ against functions of the upstream state dict."""

import pytest
import torch
from reference.published_vit import make_bsq_vit, run_bsq_vit

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published import from_published

VIT = {
    "image_size": 8, "patch_size": 4, "width": 16, "layers": 2, "heads": 4, "mlp_ratio": 4,
    "drop_rate": 0.0,
}  # fmt: skip


def values(bits, **more):
    return {
        "vitconfig": VIT, "embed_dim": bits, "embed_group_size": 1, "l2_norm": True,
        "post_q_l2_norm": True, "clamp_range": [-1, 1], "analytic": True, **more,
    }  # fmt: skip


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def compare(tok, x, expected):
    z, indices, z_q, picture = expected
    codes = tok.encode(x)
    assert codes.indices.shape == (2, 2, 2, 1)
    assert codes.indices.flatten(1).equal(indices)
    close(tok.encoder(x).flatten(1, 2), z)
    close(tok.quantizer.decode(codes.indices).flatten(1, 2), z_q)
    close(tok.decode(codes, raw=True), picture)
    assert tok.decode(codes).abs().max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("bits", [6, 36])
def test_bsq_vit_is_the_written_formula_with_exact_indices(bits):
    state = make_bsq_vit(bits)
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    tok = from_published("bsq_vit", state, values(bits, analytic=False))
    compare(tok, x, run_bsq_vit(state, x, heads=4))


@torch.no_grad()
def test_the_training_file_with_averages_is_unwrapped():
    averaged, raw = make_bsq_vit(seed=1), make_bsq_vit(seed=2)
    file = {
        "epoch": 1,
        "state_dict": {f"module.{key}": value for key, value in raw.items()},
        "ema_state_dict": {f"module.module.{key}": value for key, value in averaged.items()},
    }
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    compare(from_published("bsq_vit", file, values(6)), x, run_bsq_vit(averaged, x, 4))
    tok = from_published("bsq_vit", file, values(6), weights="raw")
    compare(tok, x, run_bsq_vit(raw, x, 4))


@torch.no_grad()
def test_models_of_the_unit_range_are_converted():
    state = make_bsq_vit()
    unit = torch.rand(2, 3, 8, 8)
    tok = from_published("bsq_vit", state, values(6, clamp_range=[0, 1]))
    *rest, picture = run_bsq_vit(state, unit, heads=4)
    compare(tok, unit * 2 - 1, (*rest, picture * 2 - 1))


@torch.no_grad()
def test_vit_vq_searches_directions():
    state = make_bsq_vit(bits=6, codes=20)
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    compare(from_published("vit_vq", state, values(6)), x, run_bsq_vit(state, x, heads=4))


def test_heads_are_64_wide_where_nobody_says():
    tok = from_published("bsq_vit", make_bsq_vit(width=128, layers=1))
    assert tok.config["encoder"]["heads"] == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(CheckpointError, match="its family is vit_vq"):
        from_published("bsq_vit", make_bsq_vit(codes=8), values(6))
    with pytest.raises(CheckpointError, match=r"expected a key 'quantize\.embedding\.weight'"):
        from_published("vit_vq", make_bsq_vit(), values(6))
    with pytest.raises(ConfigError, match="expected l2_norm=True where post_q_l2_norm is"):
        from_published("vit_vq", make_bsq_vit(codes=8), values(6, l2_norm=False))
    with pytest.raises(ConfigError, match="expected a decoder to pixels"):
        from_published("bsq_vit", make_bsq_vit(), values(6, logit_laplace=True))
    with pytest.raises(CheckpointError, match="expected layers of 2, as the tensors have it"):
        from_published("bsq_vit", make_bsq_vit(), values(6, vitconfig={**VIT, "layers": 3}))


@torch.no_grad()
def test_codes_without_a_norm_are_plus_and_minus_one():
    state, x = make_bsq_vit(bits=6), torch.rand(2, 3, 8, 8) * 2 - 1
    tok = from_published("bsq_vit", state, values(6, post_q_l2_norm=False))
    z, indices, z_q, _ = run_bsq_vit(state, x, heads=4)
    codes = tok.encode(x)
    assert codes.indices.flatten(1).equal(indices)
    close(tok.quantizer.decode(codes.indices).flatten(1, 2), z.sign())
    close(z_q * 6**0.5, z.sign())


@torch.no_grad()
def test_other_widths_inside_the_mlps_are_read_from_the_tensors():
    state, x = make_bsq_vit(ratio=2), torch.rand(2, 3, 8, 8) * 2 - 1
    tok = from_published("bsq_vit", state, values(6, vitconfig={**VIT, "mlp_ratio": 2}))
    compare(tok, x, run_bsq_vit(state, x, heads=4))
    with pytest.raises(CheckpointError, match=r"expected mlp_ratio of 2\.0, as the tensors"):
        from_published("bsq_vit", state, values(6))


def test_vit_vq_takes_the_values_of_its_own_constructor():
    given = {"vitconfig": VIT, "n_embed": 8, "embed_dim": 6, "freeze_codebook": True}
    given["predefined_codebook"] = "leech.npy"
    state = make_bsq_vit(codes=8)
    tok = from_published("vit_vq", state, {**given, "l2_norm": False})
    assert tok.config["quantizer"]["metric"] == "euclidean"
    assert from_published("vit_vq", state, given).config["quantizer"]["metric"] == "cosine"
    with pytest.raises(CheckpointError, match="expected n_embed of 8, as the tensors have it"):
        from_published("vit_vq", state, {**given, "n_embed": 9})


def test_another_kind_of_transformer_is_refused():
    with pytest.raises(ConfigError) as error:
        from_published("bsq_vit", make_bsq_vit(), values(6, vitconfig={**VIT, "num_frames": 8}))
    assert str(error.value) == (
        "from_published decoder: expected num_frames of 1, that of the published files; got 8. No "
        "other is known here."
    )
