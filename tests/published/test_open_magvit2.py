import pytest
import torch
from reference.convnets import (
    assert_same,
    fill,
    magvit2_decode,
    magvit2_encode,
    magvit2_shapes,
    sign_codes,
    signs,
)

from tokenizers_vq import from_published
from tokenizers_vq.errors import CheckpointError, ConfigError

SHAPES = magvit2_shapes(32, (1, 2), 1, 6)
NETWORK = {
    "double_z": False,
    "z_channels": 6,
    "resolution": 128,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
}
CONFIG = {"ddconfig": NETWORK, "n_embed": 64, "embed_dim": 6}


def pictures():
    return torch.rand(2, 3, 12, 20) * 2 - 1


def first_line(error):
    return str(error.value).splitlines()[0]


@pytest.mark.parametrize("mult", [(1, 2), (1, 1, 2)])
@pytest.mark.parametrize("config", [None, {"embed_dim": 6, "n_embed": 64}])
def test_latents_indices_and_pictures_are_those_of_the_formulas(mult, config):
    state = fill(magvit2_shapes(32, mult, 2, 6))
    x = pictures()
    z = magvit2_encode(state, x)
    q = sign_codes(z)
    sure = (z.abs().amin(1) > 1e-4)[..., None]
    tokenizer = from_published("open_magvit2", state, config)
    assert_same(tokenizer, x, z, signs(z, 6), sure, q, magvit2_decode(state, q))
    assert tokenizer.quantizer.codebook_sizes == (64,)


def test_a_training_file_gives_averaged_or_raw_weights():
    raw, averaged = fill(SHAPES), {k: v * 1.5 for k, v in fill(SHAPES).items()}
    ema = {f"model_ema.{k.replace('.', '')}": v for k, v in averaged.items()}
    ema |= {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(-1)}
    ema["model_ema.lossdiscriminatormain0weight"] = torch.zeros(1)
    loss = {"loss.discriminator.main.0.weight": torch.zeros(1)}
    file = {"state_dict": {**raw, **ema, **loss}, "global_step": 3}
    whole = {"model": {"class_path": "VQModel", "init_args": {**CONFIG, "use_ema": True}}}
    for weights, expected in (("ema", averaged), ("raw", raw)):
        tokenizer = from_published("open_magvit2", file, whole, weights=weights)
        found = tokenizer.decoder.conv_out.weight
        assert torch.equal(found, expected["decoder.conv_out.weight"])


def test_indices_of_language_models_are_split_in_two():
    state = fill(SHAPES)
    config = {**CONFIG, "token_factorization": True, "factorized_bits": [2, 4]}
    tokenizer = from_published("open_magvit2", state, config)
    x = pictures()
    z = magvit2_encode(state, x)
    assert tokenizer.quantizer.codebook_sizes == (4, 16)
    assert torch.equal(tokenizer.encode(x).indices, signs(z, [2, 4]))


def test_a_missing_or_unexpected_key_is_named():
    state = fill(SHAPES)
    state["encoder.conv_in.bias"] = torch.zeros(32)
    with pytest.raises(CheckpointError) as error:
        from_published("open_magvit2", state, CONFIG)
    assert "1 unexpected (first: encoder.conv_in.bias)" in first_line(error)
    del state["encoder.conv_in.bias"], state["decoder.adaptive.1.beta.bias"]
    with pytest.raises(CheckpointError) as error:
        from_published("open_magvit2", state, CONFIG)
    assert "1 missing and 0 unexpected (first: decoder.adaptive.1.beta.bias)" in first_line(error)


FOREIGN = [
    (
        {"quantize.embedding.weight": torch.zeros(4, 6)},
        "one with a codebook (families simvq, ibq, taming have one)",
    ),
    (
        {"decoder.adaptive.0.gamma.weight": None},
        "one without adaptive norms (family simvq has none)",
    ),
    (
        {"encoder.mid_block.0.conv1.weight": None},
        "one without encoder.mid_block (families of other CNNs name it mid)",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), FOREIGN)
def test_checkpoints_of_other_families_are_named(changes, reason):
    state = {**fill(SHAPES), **changes}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(CheckpointError) as error:
        from_published("open_magvit2", state)
    assert first_line(error) == (
        f"from_published('open_magvit2'): expected a checkpoint of this family; got {reason}."
    )


def test_constructor_values_that_contradict_the_tensors_are_named():
    for config, message in (
        ({**CONFIG, "ddconfig": {**NETWORK, "ch": 64}}, "expected ch of 32"),
        ({**CONFIG, "n_embed": 262144}, "expected n_embed of 64"),
    ):
        with pytest.raises(CheckpointError) as error:
            from_published("open_magvit2", fill(SHAPES), config)
        assert message in first_line(error)
    with pytest.raises(ConfigError) as error:
        from_published("open_magvit2", fill(SHAPES), {**CONFIG, "codebook": 3})
    assert "got 'codebook'" in first_line(error)
