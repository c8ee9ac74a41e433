"""Imported WavTokenizer gives what functions written from the formulas give."""

import pytest
import torch
from reference import seanet, vocos

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published import from_published

RATIOS = (4, 2)
CASE = {
    "dowmsamples": [4, 2], "n_fft": 32, "hop_length": 8, "small": True, "dimension": 4,
    "n_filters": 2, "dim": 64, "intermediate_dim": 12, "num_layers": 2,
    "post_fill": {"head.out.weight": 0.5},
}  # fmt: skip
TRAINING = {
    "seed_everything": 3407,
    "data": {"class_path": "decoder.dataset.VocosDataModule"},
    "model": {
        "class_path": "decoder.experiment.WavTokenizer",
        "init_args": {
            "sample_rate": 24000, "initial_learning_rate": 2e-4, "mel_loss_coeff": 45,
            "resume": False,
            "feature_extractor": {
                "class_path": "decoder.feature_extractors.EncodecFeatures",
                "init_args": {"encodec_model": "encodec_24khz", "bandwidths": [6.6] * 4,
                              "train_codebooks": True, "num_quantizers": 1, "vq_bins": 16,
                              "dowmsamples": [4, 2], "vq_kmeans": 200},
            },
            "backbone": {
                "class_path": "decoder.models.VocosBackbone",
                "init_args": {"input_channels": 4, "dim": 64, "intermediate_dim": 12,
                              "num_layers": 2, "adanorm_num_embeddings": 4},
            },
            "head": {
                "class_path": "decoder.heads.ISTFTHead",
                "init_args": {"dim": 64, "n_fft": 32, "hop_length": 8, "padding": "same"},
            },
        },
    },
}  # fmt: skip


def published(levels=1):
    inside = seanet.published(levels=levels)
    state = {f"feature_extractor.encodec.{key}": value for key, value in inside.items()}
    return state | vocos.published(width=64, attention=True), inside


def lightning(state):
    other = {
        "multiperioddisc.discriminators.0.convs.0.weight_g": torch.ones(2, 1, 1, 1),
        "multiperioddisc.discriminators.0.convs.0.weight_v": torch.ones(2, 1, 5, 1),
        "multiresddisc.discriminators.0.emb.weight": torch.zeros(4, 8),
        "dac.discriminators.0.conv_post.bias": torch.zeros(1),
        "melspec_loss.mel_spec.spectrogram.window": torch.ones(8),
    }
    return {"state_dict": state | other, "epoch": 3, "optimizer_states": []}


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "config"), [(dict, CASE), (lightning, TRAINING), (dict, None)],
    ids=["values", "training", "nothing"],
)  # fmt: skip
def test_every_layout_gives_the_numbers_of_the_formulas(layout, config):
    state, inside = published()
    tok = from_published("wavtokenizer", layout(state), config)
    assert tok.signal.sample_rate == 24000
    for length in (1, 8, 201):
        x = torch.rand(2, 1, length, generator=torch.Generator().manual_seed(length)) - 0.5
        z = seanet.encoder(inside, x, RATIOS, causal=False)
        torch.testing.assert_close(tok.encoder(x).mT, z, rtol=1e-4, atol=1e-5)
        indices, q = seanet.codes(inside, z, 1)
        codes = tok.encode(x)
        assert torch.equal(codes.indices, indices)
        for setting in (0, 2):
            y = vocos.decode(state, q, hop=8, setting=setting)[:, None, :length]
            got = tok.decode(codes, raw=True, bandwidth_id=setting)
            torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-5)
        assert torch.equal(tok.decode(codes), tok.decode(codes, bandwidth_id=0))


def test_moving_averages_come_along():
    state, inside = published()
    head = from_published("wavtokenizer", state).quantizer
    level = "quantizer.vq.layers.0._codebook."
    assert torch.equal(head.cluster_size, inside[level + "cluster_size"])
    assert torch.equal(head.cluster_sum, inside[level + "embed_avg"])
    assert bool(head.initialized)


def test_wrong_files_and_values_are_named():
    state, _ = published()
    for value, name in (({"num_layers": 12}, "num_layers of 2"), ({"n_fft": 64}, "n_fft of 32")):
        with pytest.raises(CheckpointError) as error:
            from_published("wavtokenizer", state, value)
        assert f"expected {name}, as the tensors have it" in str(error.value)
    with pytest.raises(CheckpointError) as error:
        from_published("wavtokenizer", published(levels=2)[0])
    assert str(error.value) == (
        "from_published('wavtokenizer'): expected a checkpoint of this family; got one with more "
        "than one codebook."
    )
    with pytest.raises(CheckpointError) as error:
        from_published("wavtokenizer", vocos.published())
    assert str(error.value) == (
        "from_published('wavtokenizer'): expected a checkpoint of this family; got one without "
        "backbone.pos_net, the attention in front of the decoder."
    )
