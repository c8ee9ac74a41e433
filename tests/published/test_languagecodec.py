"""Imported Language-Codec gives what functions written from the formulas give."""

import pytest
import torch
from reference import seanet, vocos

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published import from_published

RATIOS = (4, 2)
CASE = {"small": True, "dimension": 4, "n_filters": 2, "dim": 8, "intermediate_dim": 12,
        "num_layers": 2}  # fmt: skip


def published(levels=5):
    inside = seanet.published(levels=levels)
    state = {f"feature_extractor.encodec.{key}": value for key, value in inside.items()}
    return state | vocos.published(), inside


def masked_codes(state, z, count):
    """The first three levels see a third of the channels each, the others what is left."""
    d = z.shape[1]
    cuts = [0, d // 3, 2 * d // 3, d]
    total, found = torch.zeros_like(z), []
    for level in range(count):
        rest = z - total
        if level < 3:
            rest = torch.zeros_like(z)
            rest[:, cuts[level] : cuts[level + 1]] = z[:, cuts[level] : cuts[level + 1]]
        table = state[f"quantizer.vq.layers.{level}._codebook.embed"]
        index = (rest.mT[..., None, :] - table).square().sum(-1).argmin(-1)
        total = total + table[index].mT
        found.append(index)
    return torch.stack(found, -1), total


@torch.no_grad()
@pytest.mark.parametrize("config", [CASE, None], ids=["values", "nothing"])
def test_every_layout_gives_the_numbers_of_the_formulas(config):
    state, inside = published()
    tok = from_published("languagecodec", {"state_dict": state}, config)
    for length in (5, 201):
        x = torch.rand(2, 1, length, generator=torch.Generator().manual_seed(length)) - 0.5
        z = seanet.encoder(inside, x, RATIOS, causal=False)
        indices, q = masked_codes(inside, z, 5)
        codes = tok.encode(x)
        assert torch.equal(codes.indices, indices)
        y = vocos.decode(state, q, hop=8, setting=3)[:, None, :length]
        got = tok.decode(codes, raw=True, bandwidth_id=3)
        torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-5)
        _, q = masked_codes(inside, z, 4)
        y = vocos.decode(state, q, hop=8)[:, None, :length]
        got = tok.decode(codes, num_codebooks=4, raw=True)
        torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-5)


def test_wrong_files_are_named():
    for state, what in (
        (published(levels=2)[0], "less than the three codebooks that see a part of the channels "
                                 "each"),
        (vocos.published(width=32, attention=True), "backbone.pos_net, which is WavTokenizer's"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError) as error:
            from_published("languagecodec", state)
        assert str(error.value) == (
            "from_published('languagecodec'): expected a checkpoint of this family; got one with "
            f"{what}."
        )
