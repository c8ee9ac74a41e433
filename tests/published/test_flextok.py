"""FlexTok's importer and network against functions of the upstream state dict."""

import pytest
import torch
from reference.flextok import decode, encode, make
from reference.published_checks import check_strictness, close, message

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published import from_published
from tokenizers_vq.published.keys import rename

VALUES = {"scaling_factor": 0.5}


def latents():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_registers_and_codes_are_those_of_the_formulas():
    state, x = make(), latents()
    tok = from_published("flextok", state, VALUES)
    z = encode(state, 0.5 * x)
    assert close(tok.encoder(x), z)
    levels = torch.tensor([8, 8, 8, 5, 5, 5])
    half, even = (levels - 1) * 1.001 / 2, levels % 2 == 0
    offset = torch.where(even, 0.5, 0.0)
    bounded = torch.tanh(z + torch.atanh(offset / half)) * half - offset
    digits = bounded.round().long() + levels // 2
    scale = torch.tensor([1, 8, 64, 512, 2560, 12800])
    index = (digits * scale).sum(-1)
    sure = ((bounded - bounded.floor() - 0.5).abs() > 1e-3).all(-1)
    found = tok.encode(x).indices[..., 0]
    assert sure.float().mean() > 0.9
    assert (found == index)[sure].all()
    assert tok.encode(x, num_tokens=2).indices[..., 0].equal(found[:, :2])
    assert len(found.unique()) > 3


@torch.no_grad()
@pytest.mark.parametrize("count", [6, 2])
def test_the_flow_is_that_of_the_formulas(count):
    state = make()
    tok = from_published("flextok", state, VALUES)
    indices = torch.randint(64000, (2, count, 1))
    q = tok.quantizer.decode(indices)
    drawn = torch.Generator().manual_seed(5)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    expected = decode(state, q, noise, steps=3, strength=4.0) / 0.5
    made = tok.decode(indices, raw=True, steps=3, guidance=4.0, generator=drawn)
    assert close(made, expected)


@torch.no_grad()
def test_missing_tokens_are_the_mask_token():
    tok = from_published("flextok", make(), VALUES)
    whole = torch.randint(64000, (1, 6, 1))
    short = whole.clone()
    short[:, 2:] = -1
    prefix = tok.decode(whole[:, :2], raw=True, steps=2)
    torch.testing.assert_close(tok.decode(short, raw=True, steps=2), prefix)
    torch.testing.assert_close(tok.decode(whole, num_tokens=2, raw=True, steps=2), prefix)


def test_wrong_files_and_values_are_named():
    state = make()
    key = "decoder.module_dict.dec_latent_dropout.nullcond"
    check_strictness("flextok", state, VALUES, key=key, shown="decoder.null_token")
    where = "from_published('flextok'): expected a checkpoint of this family; got "
    assert message("flextok", {"a": torch.zeros(1)}) == (
        where + "one without registers in its encoder."
    )
    assert "got 'scale'" in message("flextok", state, {"scale": 1}, error=ConfigError)
    block = {"blocks": {"partial": {"head_dim": 32}}}
    assert message("flextok", state, {"encoder": block}, error=ConfigError) == (
        "from_published('flextok'): expected head_dim of 64; got 32 at "
        "encoder.blocks.partial.head_dim. No other is known here."
    )
    dropout = {"dec_latent_dropout": {"replace_with_single_token": True}}
    assert message("flextok", state, {"decoder": dropout}, error=ConfigError) == (
        "from_published('flextok'): expected replace_with_single_token of False; got True at "
        "decoder.dec_latent_dropout.replace_with_single_token. No other is known here."
    )
    tok = from_published("flextok", state, {**VALUES, "encoder": {"head_dim": 64}})
    with pytest.raises(ConfigError) as error:
        tok.decode(torch.zeros(1, 6, 1, dtype=torch.int64), steps=0)
    assert str(error.value) == "FlexTokDecoder: expected steps of at least 1; got 0. 20 is usual."


def test_the_autoencoder_inside_is_read_under_the_names_of_diffusers():
    from tokenizers_vq.published.flextok import FAMILY
    from tokenizers_vq.tokenizer import Tokenizer

    state = make(channels=4)
    state |= autoencoder(channels=4)
    built = FAMILY.configure(state, {})
    assert built["encoder"]["size"] == 16
    made = rename(state, FAMILY.rules(built), "test")
    own = Tokenizer.from_config(built).state_dict()
    assert {key: value.shape for key, value in made.items()} == {
        key: value.shape for key, value in own.items() if key in made
    }
    assert [key for key in own if key not in made] == ["quantizer._extra_state"]  # no tensor
    first = state["vae.vae.decoder.up_blocks.0.resnets.0.conv1.weight"]  # runs first: coarsest
    assert made["decoder.vae.up.1.block.0.conv1.weight"].equal(first)


def autoencoder(channels, widths=(32, 64)):
    """Shapes of a diffusers AutoencoderKL with one block per level."""
    shapes = {}

    def conv(name, cout, cin, side):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (cout, cin, side, side), (cout,)

    def norm(name, width):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def block(name, cin, cout):
        norm(f"{name}.norm1", cin)
        conv(f"{name}.conv1", cout, cin, 3)
        norm(f"{name}.norm2", cout)
        conv(f"{name}.conv2", cout, cout, 3)
        if cin != cout:
            conv(f"{name}.conv_shortcut", cout, cin, 1)

    small, large = widths
    conv("encoder.conv_in", small, 3, 3)
    block("encoder.down_blocks.0.resnets.0", small, small)
    conv("encoder.down_blocks.0.downsamplers.0.conv", small, small, 3)
    block("encoder.down_blocks.1.resnets.0", small, large)
    conv("decoder.conv_in", large, channels, 3)
    for i in range(2):
        block(f"decoder.up_blocks.0.resnets.{i}", large, large)
        block(f"decoder.up_blocks.1.resnets.{i}", small if i else large, small)
    conv("decoder.up_blocks.0.upsamplers.0.conv", large, large, 3)
    for half in ("encoder", "decoder"):
        for i in range(2):
            block(f"{half}.mid_block.resnets.{i}", large, large)
        norm(f"{half}.mid_block.attentions.0.group_norm", large)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes[f"{half}.mid_block.attentions.0.{part}.weight"] = (large, large)
            shapes[f"{half}.mid_block.attentions.0.{part}.bias"] = (large,)
    norm("encoder.conv_norm_out", large)
    norm("decoder.conv_norm_out", small)
    conv("encoder.conv_out", 2 * channels, large, 3)
    conv("decoder.conv_out", 3, small, 3)
    conv("quant_conv", 2 * channels, 2 * channels, 1)
    conv("post_quant_conv", channels, channels, 1)
    return {f"vae.vae.{key}": torch.randn(shape) for key, shape in shapes.items()}
