"""FlexTok: sizes, guidance, and how it trains."""

import pytest
import torch

from tokenizers_vq.backbones.flow import Guidance, from_patches, prefix_causal, to_patches
from tokenizers_vq.configs import read_config, tokenizer_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer


def trunk(width, depth, sets):
    """Parameters of blocks: four projections, the gated MLP, and the modulations."""
    hidden = int(2 * 4 * width / 3)
    return depth * (4 * width**2 + 3 * width * hidden + sets * 6 * width * (width + 1))


@pytest.mark.parametrize(
    ("name", "widths", "depths"),
    [
        ("d12_d12", (768, 768), (12, 12)),
        ("d18_d18", (1152, 1152), (18, 18)),
        ("d18_d28", (1152, 1792), (18, 28)),
    ],
)
def test_the_sizes_are_those_of_the_arithmetic(name, widths, depths):
    with torch.device("meta"):
        tok = Tokenizer.from_config(tokenizer_config(f"flextok_{name}", "fsq"))
    count = {
        side: sum(p.numel() for key, p in part.named_parameters() if not key.startswith("vae."))
        for side, part in (("encoder", tok.encoder), ("decoder", tok.decoder))
    }
    w, v = widths
    ends = 65 * w + 256 * w + 6 * (w + 1)
    assert count["encoder"] == trunk(w, depths[0], 0) + ends
    ends = 7 * v + 256 * v + 2 * v + 65 * v + 257 * v + v * (v + 1) + 2 * v * (v + 1) + 64 * (v + 1)
    assert count["decoder"] == trunk(v, depths[1], 2) + ends
    assert tok.encoder.size == (256, 256)
    assert tok.encoder.num_tokens == 256


def tiny():
    return Tokenizer.from_config(tokenizer_config("tiny_flextok", "fsq"))


def test_a_training_step_teaches_the_velocity_and_leaves_the_autoencoder_alone():
    tok, x = tiny().train(), torch.rand(4, 3, 32, 32) * 2 - 1
    made = tok.decoder.training_pass(tok, x, 0)
    assert set(made.terms) == {"velocity"}
    assert made.x_hat.numel() == 0
    made.terms["velocity"].backward()
    learns = {name for name, p in tok.named_parameters() if p.grad is not None}
    assert not any(".vae." in name for name in learns)
    rest = {name for name, _ in tok.named_parameters() if ".vae." not in name}
    assert learns == rest


def test_training_shows_the_layer_asked_for_and_no_other():
    tok, x = tiny().train(), torch.rand(2, 3, 32, 32) * 2 - 1
    assert tok.decoder.training_pass(tok, x, 0).hidden is None
    tok.decoder.hidden_layer = 1
    seen = []
    tok.decoder.blocks[0].register_forward_hook(lambda block, given, out: seen.append(out))
    hidden = tok.decoder.training_pass(tok, x, 0).hidden
    patches = hidden.shape[1] * hidden.shape[2]
    assert hidden.shape == (2, *tok.decoder.grid_shape, 32)
    assert torch.equal(hidden.flatten(1, 2), seen[0][:, :patches])


@pytest.mark.parametrize("keep", ["uniform", "pow2", "uniform_pow2"])
def test_dropout_keeps_the_first_tokens(keep):
    tok = tiny()
    tok.decoder.keep = keep
    kept = tok.decoder._kept(torch.zeros(200, 8, 6))
    counts = kept.sum(1)
    assert torch.equal(kept, torch.arange(8) < counts[:, None])
    expected = set(range(1, 9)) if keep == "uniform" else {1, 2, 4, 8}
    assert set(counts.tolist()) == expected


def test_decoding_repeats_itself_unless_a_generator_draws_the_noise():
    tok = tiny().eval()
    indices = torch.randint(64000, (2, 3, 1))
    assert torch.equal(tok.decode(indices), tok.decode(indices))
    one, other = (tok.decode(indices, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    assert not torch.equal(one, other)
    assert set(tok.decode_options) == {"steps", "guidance", "projected", "generator"}


def test_guidance_of_one_changes_nothing_and_projection_leaves_its_direction():
    c, u = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    torch.testing.assert_close(Guidance(1.0, projected=False)(c, u), c)
    change = Guidance(3.0, projected=True)(c, u) - c
    assert (change * c).sum((1, 2, 3)).abs().max() < 1e-5
    assert change.flatten(1).norm(dim=1).max() <= 2 * 2.5 + 1e-5
    torch.testing.assert_close(Guidance(3.0, projected=False)(c, u), 3 * c - 2 * u)


def test_registers_see_what_is_before_them():
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert prefix_causal(2, 2).int().tolist() == expected


def test_patches_go_there_and_back():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    rows = to_patches(x, 2)
    assert rows[0, 1].tolist() == [
        x[0, c, i, j].item() for i in (0, 1) for j in (2, 3) for c in range(3)
    ]
    assert torch.equal(from_patches(rows, 2, (2, 3)), x)


def test_wrong_options_are_named():
    config = read_config("backbone", "tiny_flextok")
    for change, text in (
        ({"decoder": {**config["decoder"], "keep": "all"}}, "flextok keep: there is no 'all'"),
        ({"decoder": {**config["decoder"], "hidden_layer": 2}}, "hidden_layer of 1..1"),
        ({"encoder": {**config["encoder"], "size": 30}}, "FlexTokEncoder: expected a size in"),
        ({"encoder": {**config["encoder"], "vae": None}}, "FlexTokEncoder: expected a vae, or"),
    ):
        with pytest.raises(ConfigError, match=text):
            Tokenizer.from_config(
                {**config, **change, "quantizer": read_config("quantizer", "fsq")}
            )
