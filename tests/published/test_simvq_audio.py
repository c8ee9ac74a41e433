"""Imported SimVQ for audio gives what functions written from the formulas give."""

import pytest
import torch
from reference import seanet, vocos

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published import from_published

VALUES = {
    "model": {
        "class_path": "taming.models.vq_audio.VQModel",
        "init_args": {
            "ddconfig": {"causal": True, "dimension": 4},
            "quantconfig": {
                "target": "taming.modules.vqvae.quantize.SimVQ1D",
                "params": {"n_e": 16, "e_dim": 4, "beta": 0.25, "legacy": False},
            },
            "sample_rate": 24000, "audio_normalize": False, "use_ema": True,
        },
    }
}  # fmt: skip


def published():
    inside = seanet.published()
    state = {key: value for key, value in inside.items() if not key.startswith("quantizer.")}
    state |= vocos.published(width=32, attention=True, ids=0)
    generator = torch.Generator().manual_seed(3)
    state["quantize.embedding.weight"] = torch.randn(16, 4, generator=generator)
    state["quantize.embedding_proj.weight"] = torch.randn(4, 4, generator=generator)
    state["quantize.embedding_proj.bias"] = 0.1 * torch.randn(4, generator=generator)
    return state


def with_averages(state):
    """The weights of the last step, and the averages that are asked for, as the trainer has."""
    last = {key: value + 1 for key, value in state.items()}
    kept = {f"model_ema.{key.replace('.', '')}": value for key, value in state.items()}
    return {"state_dict": last | kept | {"loss.dac.weight": torch.zeros(1)}}


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "config"), [(dict, None), (with_averages, VALUES)], ids=["plain", "averages"]
)
def test_every_layout_gives_the_numbers_of_the_formulas(layout, config):
    state = published()
    tok = from_published("simvq_audio", layout(state), config)
    x = torch.rand(2, 1, 201, generator=torch.Generator().manual_seed(0)) - 0.5
    z = seanet.encoder(state, x, (4, 2), causal=True)
    table = state["quantize.embedding.weight"] @ state["quantize.embedding_proj.weight"].T
    table = table + state["quantize.embedding_proj.bias"]
    indices = (z.mT[..., None, :] - table).square().sum(-1).argmin(-1)
    codes = tok.encode(x)
    assert torch.equal(codes.indices[..., 0], indices)
    y = vocos.decode(state, table[indices].mT, hop=8)[:, None, :201]
    torch.testing.assert_close(tok.decode(codes, raw=True), y, rtol=1e-4, atol=1e-5)
    assert "bandwidth_id" not in tok.decode_options


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("quantize.embedding_proj.weight",
         "quantize.embedding_proj, the linear map in front of the codebook"),
        ("head.out.weight", "head.out, which is SimVQ for images: import it as 'simvq'"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(key, what):
    state = published()
    del state[key]
    with pytest.raises(CheckpointError) as error:
        from_published("simvq_audio", state)
    assert str(error.value) == (
        "from_published('simvq_audio'): expected a checkpoint of this family; got one without "
        f"{what}."
    )
