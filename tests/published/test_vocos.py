"""Imported Vocos gives what functions written from the formulas give."""

import pytest
import torch
from reference import seanet, vocos

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published import from_published
from tokenizers_vq.published.vocos import load_decoder

LEVELS = 2  # of EnCodec's three, as its highest bit rate here
HUB = {
    "feature_extractor": {
        "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
        "init_args": {"sample_rate": 24000, "n_fft": 32, "hop_length": 8, "n_mels": 4,
                      "padding": "center"},
    },
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {"input_channels": 4, "dim": 8, "intermediate_dim": 12, "num_layers": 2},
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 8, "n_fft": 32, "hop_length": 8, "padding": "center"},
    },
}  # fmt: skip


def published():
    inside = seanet.published()
    tables = [inside[f"quantizer.vq.layers.{n}._codebook.embed"] for n in range(LEVELS)]
    state = vocos.published() | {"feature_extractor.codebook_weights": torch.cat(tables)}
    return state, inside


def merged():
    state, inside = published()
    return state | {f"feature_extractor.encodec.{key}": value for key, value in inside.items()}


@torch.no_grad()
def test_with_encodec_beside_it_it_encodes_and_decodes():
    state, inside = published()
    tok = from_published("vocos", merged())
    x = torch.rand(2, 1, 201, generator=torch.Generator().manual_seed(0)) - 0.5
    z = seanet.encoder(inside, x, (4, 2), causal=True)
    indices, q = seanet.codes(inside, z, LEVELS)
    codes = tok.encode(x)
    assert torch.equal(codes.indices, indices)
    y = vocos.decode(state, q, hop=8, setting=3)[:, None, :201]
    torch.testing.assert_close(tok.decode(codes, raw=True), y, rtol=1e-4, atol=1e-5)
    _, q = seanet.codes(inside, z, 1)
    y = vocos.decode(state, q, hop=8, setting=1)[:, None, :201]
    got = tok.decode(codes, num_codebooks=1, bandwidth_id=1, raw=True)
    torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_alone_it_decodes_the_tokens_of_encodec():
    state = vocos.published(size=1280)
    table = torch.randn(3 * 1024, 4, generator=torch.Generator().manual_seed(0))
    tok = from_published("vocos", state | {"feature_extractor.codebook_weights": table})
    indices = torch.randint(1024, (2, 5, 3), generator=torch.Generator().manual_seed(1))
    q = sum(table[indices[..., k] + 1024 * k] for k in range(3)).mT
    y = vocos.decode(state, q, hop=320, setting=3)[:, None]
    torch.testing.assert_close(tok.decode(indices, raw=True), y, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="got one that was published without"):
        tok.encode(torch.zeros(1, 1, 640))


@torch.no_grad()
@pytest.mark.parametrize("config", [HUB, None], ids=["hub", "nothing"])
def test_spectrograms_have_a_decoder_and_no_tokens(config):
    state = vocos.published(ids=0)
    state["feature_extractor.mel_spec.mel_scale.fb"] = torch.zeros(17, 4)
    decoder = load_decoder(state, config)
    mels = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    y = vocos.decode(state, mels, hop=8, padding="center")[:, None]
    torch.testing.assert_close(decoder(mels.mT), y, rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError) as error:
        from_published("vocos", state, config)
    assert str(error.value) == (
        "from_published('vocos'): expected a checkpoint of this family; got one of mel "
        "spectrograms, which has no tokens: published.vocos.load_decoder reads it."
    )


def test_codebooks_that_do_not_make_the_tokens_are_refused():
    state = merged()
    state["feature_extractor.codebook_weights"] = state["feature_extractor.codebook_weights"] + 1
    with pytest.raises(CheckpointError) as error:
        from_published("vocos", state)
    assert str(error.value) == (
        "from_published('vocos'): expected EnCodec's codebooks in "
        "feature_extractor.codebook_weights; got other ones at level 0. Leave out "
        "feature_extractor.encodec to decode EnCodec's tokens."
    )
    with pytest.raises(CheckpointError) as error:
        from_published("vocos", vocos.published())
    assert str(error.value) == (
        "from_published('vocos'): expected a checkpoint of this family; got one without "
        "feature_extractor.codebook_weights, the codebooks of the tokens."
    )
