"""Importers of TiTok, TA-TiTok and One-D-Piece against functions of the upstream state dict."""

import pytest
import torch
from reference.convnets import fill, maskgit_decode, maskgit_shapes
from reference.published_checks import check_strictness, message
from reference.published_vit import make_titok, titok_codes, titok_decode, titok_latents

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published

HEADS = 4


def values(legacy=True, **more):
    model = {
        "codebook_size": 24, "token_size": 6, "use_l2_norm": legacy, "commitment_cost": 0.25,
        "vit_enc_model_size": "tiny", "vit_dec_model_size": "tiny", "vit_enc_patch_size": 4,
        "vit_dec_patch_size": 4, "num_latent_tokens": 5, "finetune_decoder": False, **more,
    }  # fmt: skip
    if not legacy:
        model["is_legacy"] = False
    return {"model": {"vq_model": model}, "dataset": {"preprocessing": {"crop_size": 8}}}


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-5)


def compare(tok, state, x, legacy):
    """Compare codes; return them with the codes' vectors."""
    z = titok_latents(state, (x + 1) / 2, HEADS, legacy)
    indices, z_q = titok_codes(state, z, unit=legacy)
    codes = tok.encode(x)
    assert codes.indices.shape == (2, 5, 1)
    assert codes.indices[..., 0].equal(indices)
    close(tok.encoder(x), z)
    close(tok.quantizer.decode(codes.indices), z_q)
    return codes, z_q


def pictures():
    return torch.rand(2, 3, 8, 8) * 2 - 1


@torch.no_grad()
def test_the_first_stage_scores_codes():
    state, x = make_titok(), pictures()
    tok = from_published("titok", state, values())
    _, z_q = compare(tok, state, x, legacy=True)
    expected = titok_decode(state, z_q, HEADS, legacy=True)
    close(tok.decoder.logits(z_q).movedim(-1, 1), expected)


@torch.no_grad()
def test_the_second_stage_makes_pixels_of_the_expected_code():
    state, x = make_titok(), pictures()
    pixels = fill(
        maskgit_shapes(32, (1, 1, 2), 1, 8, strided=False, spelling="block", backwards=True)
    )
    pixels = {k: v for k, v in pixels.items() if k.startswith("decoder.")}
    table = torch.randn(10, 8)
    state |= {f"pixel_{key}": value for key, value in pixels.items()}
    state["pixel_quantize.embedding.weight"] = table
    tok = from_published("titok", state, values(finetune_decoder=True))
    codes, z_q = compare(tok, state, x, legacy=True)
    scores = titok_decode(state, z_q, HEADS, legacy=True)
    expected = torch.einsum("bkhw,kd->bdhw", scores.softmax(1), table)
    close(tok.decode(codes, raw=True), 2 * maskgit_decode(pixels, expected) - 1)


@torch.no_grad()
def test_later_models_make_pixels_themselves():
    state, x = make_titok(legacy=False), pictures()
    tok = from_published("titok", state, values(legacy=False))
    codes, z_q = compare(tok, state, x, legacy=False)
    picture = titok_decode(state, z_q, HEADS, legacy=False)
    close(tok.decode(codes, raw=True), 2 * picture - 1)


@torch.no_grad()
def test_a_caption_stands_behind_the_latents():
    state, x = make_titok(legacy=False, text=True), pictures()
    tok = from_published("ta_titok", state, values(legacy=False))
    codes, z_q = compare(tok, state, x, legacy=False)
    words = torch.randn(2, 77, 768)
    picture = titok_decode(state, z_q, HEADS, legacy=False, words=words)
    close(tok.decode(codes, raw=True, text=words), 2 * picture - 1)
    counted = {**state, "quantize.embed_prob": torch.ones(24)}  # of clustering_vq
    again = from_published("ta_titok", counted, values(legacy=False, clustering_vq=True))
    assert again.encode(x).indices.equal(codes.indices)


@torch.no_grad()
def test_one_d_piece_decodes_any_prefix():
    state, x = make_titok(), pictures()
    tok = from_published("one_d_piece", state, values(strict_length_assertion=False))
    codes, z_q = compare(tok, state, x, legacy=True)
    assert tok.encoder.counts == tok.decoder.counts == (1, 2, 3, 4, 5)
    for n in (1, 3):
        assert tok.encode(x, num_tokens=n).indices.equal(codes.indices[:, :n])
        expected = titok_decode(state, z_q[:, :n], HEADS, legacy=True)
        close(tok.decoder.logits(z_q[:, :n]).movedim(-1, 1), expected)


@torch.no_grad()
def test_continuous_models_come_with_the_mean():
    state, x = make_titok(legacy=False, vae=True), pictures()
    tok = from_published("titok", state, values(legacy=False, quantize_mode="vae"))
    mean = titok_latents(state, (x + 1) / 2, HEADS, legacy=False)[..., :6]
    close(tok.encoder(x), mean)
    close(tok(x).x_hat, 2 * titok_decode(state, mean, HEADS, legacy=False) - 1)


def test_missing_unexpected_and_cut_tensors_are_named():
    state = make_titok()
    key, ours = "decoder.ffn.0.bias", "decoder.scores.hidden.bias"
    check_strictness("titok", state, values(), key=key, shown=ours)


def test_values_that_do_not_fit_are_refused():
    state = make_titok()
    assert message("titok", state, values(num_latent_tokens=7)) == (
        "from_published('titok'): expected num_latent_tokens of 5, as the tensors have it; got 7 "
        "in config. Pass the constructor values of this checkpoint."
    )
    assert message("titok", state, values(is_legacy=False)).startswith(
        "from_published('titok'): expected is_legacy of True"
    )
    assert message("titok", state, error=ConfigError) == (
        "from_published('titok'): expected vit_enc_model_size of tiny, small, base, large; got "
        "None for a width of 16. Pass that of the published model."
    )


@pytest.mark.parametrize(("family", "text"), [("titok", True), ("ta_titok", False)])
def test_the_other_family_is_named(family, text):
    state = make_titok(legacy=False, text=text)
    other = "ta_titok" if family == "titok" else "titok"
    assert other in message(family, state, values(legacy=False))
