"""Mimi: both layouts of the same weights are one tokenizer."""

import re

import pytest
import torch
from transformers import MimiConfig, MimiModel

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published.importing import from_published

HEADS, WIDTH = 2, 16
CONFIG = {
    "seanet": {"ratios": [4, 2], "n_filters": 4, "true_skip": True, "pad_mode": "constant"},
    "transformer": {"num_heads": HEADS, "context": 5},
    "sample_rate": 16000,
}
OTHER = {"num_attention_heads": HEADS, "sliding_window": 5, "upsampling_ratios": [4, 2]}
OTHER |= {"sampling_rate": 16000, "use_conv_shortcut": False}


def network():
    """Shapes of the convolutions, by the authors' keys."""
    shapes = {"encoder.model.0": (4, 1, 7), "encoder.model.8": (WIDTH, 16, 3)}
    shapes |= {"encoder.model.3": (8, 4, 4), "encoder.model.6": (16, 8, 8)}
    shapes |= {"decoder.model.0": (16, WIDTH, 7), "decoder.model.8": (1, 4, 3)}
    for side, widths in (("encoder", {1: 4, 4: 8}), ("decoder", {3: 8, 6: 4})):
        for place, width in widths.items():
            inner = width // 2
            shapes[f"{side}.model.{place}.block.1"] = (inner, width, 3)
            shapes[f"{side}.model.{place}.block.3"] = (width, inner, 1)
    found = {}
    for key, shape in shapes.items():
        found[f"{key}.conv.conv.weight"] = torch.randn(shape) / (shape[1] * shape[2]) ** 0.5
        found[f"{key}.conv.conv.bias"] = 0.1 * torch.randn(shape[0])
    for place, shape in ((2, (16, 8, 8)), (5, (8, 4, 4))):
        found[f"decoder.model.{place}.convtr.convtr.weight"] = torch.randn(shape) / 6
        found[f"decoder.model.{place}.convtr.convtr.bias"] = torch.zeros(shape[1])
    return found


def native():
    torch.manual_seed(0)
    state = network()
    for side in ("encoder", "decoder"):
        layer = f"{side}_transformer.transformer.layers.0."
        state[layer + "self_attn.in_projs.0.weight"] = torch.randn(3 * WIDTH, WIDTH) / 4
        state[layer + "self_attn.out_projs.0.weight"] = torch.randn(WIDTH, WIDTH) / 4
        state[layer + "linear1.weight"] = torch.randn(24, WIDTH) / 4
        state[layer + "linear2.weight"] = torch.randn(WIDTH, 24) / 4
        for i in (1, 2):
            state[layer + f"norm{i}.weight"] = 1 + 0.1 * torch.randn(WIDTH)
            state[layer + f"norm{i}.bias"] = 0.1 * torch.randn(WIDTH)
            state[layer + f"layer_scale_{i}.scale"] = torch.ones(WIDTH)
    state["downsample.conv.conv.conv.weight"] = torch.randn(WIDTH, WIDTH, 4) / 8
    state["upsample.convtr.convtr.convtr.weight"] = torch.randn(WIDTH, 1, 4) / 2
    for part, levels in (("first", 1), ("rest", 2)):
        stack = f"quantizer.rvq_{part}."
        state[stack + "input_proj.weight"] = torch.randn(6, WIDTH, 1) / 4
        state[stack + "output_proj.weight"] = torch.randn(WIDTH, 6, 1) / 3
        for i in range(levels):
            book = f"{stack}vq.layers.{i}._codebook."
            state[book + "_initialized"] = torch.ones(1)
            state[book + "cluster_usage"] = torch.rand(32) + 0.5
            state[book + "embedding_sum"] = torch.randn(32, 6)
    return state


NAMES = (
    (r"(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv\.conv|convtr\.convtr)\.(weight|bias)", r".conv.\2"),
    (r"sample\.conv(tr)?\.conv\.weight", "sample.conv.weight"),
    (r"_transformer\.transformer\.", "_transformer."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.layer_scale_1\.", ".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", ".mlp_layer_scale."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"\.out_projs\.0\.", ".o_proj."),
    (r"\.rvq_first\.", ".semantic_residual_vector_quantizer."),
    (r"\.rvq_rest\.", ".acoustic_residual_vector_quantizer."),
    (r"\.vq\.layers\.(\d+)\._codebook\._?", r".layers.\1.codebook."),
    (r"embedding_sum", "embed_sum"),
)


def converted(state):
    """The same weights as transformers keeps them."""
    found = {}
    for key, value in state.items():
        name = key
        for pattern, target in NAMES:
            name = re.sub(pattern, target, name)
        if "in_projs" not in name:
            found[name] = value
            continue
        for part, rows in zip("qkv", value.chunk(3), strict=True):
            pairs = rows.view(HEADS, WIDTH // HEADS // 2, 2, WIDTH).transpose(1, 2)
            own = key.replace("transformer.transformer", "transformer")
            own = own.replace("in_projs.0", f"{part}_proj")
            found[own] = rows if part == "v" else pairs.reshape(WIDTH, WIDTH)
    return found


@torch.no_grad()
def test_both_layouts_are_one_tokenizer():
    first = from_published("mimi", native(), CONFIG)
    second = from_published("mimi", converted(native()), OTHER)
    assert not second.config["encoder"].pop("whole")
    assert first.config["encoder"].pop("whole")
    assert first.config == second.config
    for (key, value), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), key
    x = torch.rand(1, 1, 208) - 0.5
    assert torch.equal(first.encode(x).indices, second.encode(x).indices)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 15, 16, 17, 200])
def test_a_network_of_transformers_gives_its_codes_and_sound(length):
    torch.manual_seed(0)
    config = MimiConfig(
        hidden_size=16, num_filters=4, upsampling_ratios=[4, 2], num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=24,
        num_quantizers=3, codebook_size=32, codebook_dim=6, vector_quantization_hidden_dimension=6,
        sliding_window=5, upsample_groups=16, sampling_rate=16000,
        frame_rate=1000.0, attn_implementation="eager",
    )  # fmt: skip
    model = MimiModel(config).eval()
    for key, value in model.state_dict().items():  # by its names in memory
        if key.endswith("embed_sum"):
            value.normal_()
    tok = from_published("mimi", model.state_dict(), config.to_dict())
    x = torch.rand(1, 1, length) - 0.5
    theirs = model.encode(x, num_quantizers=3).audio_codes
    assert torch.equal(tok.encode(x).indices.mT, theirs)
    sound = model.decode(theirs).audio_values[..., :length]
    torch.testing.assert_close(tok.decode(tok.encode(x), raw=True), sound, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_codes_are_means_and_order_is_that_of_levels():
    state = native()
    tokenizer = from_published("mimi", state, CONFIG)
    assert tokenizer.quantizer.codebook_sizes == (32,) * 3
    book = "quantizer.rvq_rest.vq.layers.1._codebook."
    mean = state[book + "embedding_sum"] / state[book + "cluster_usage"][:, None]
    torch.testing.assert_close(tokenizer.quantizer.groups[1].stages[1].codebook, mean)
    latents = tokenizer.quantizer.decode(torch.tensor([[[-1, -1, 3]]]))[0, 0]
    out = state["quantizer.rvq_rest.output_proj.weight"][..., 0]
    torch.testing.assert_close(latents, out @ mean[3])


def test_codebooks_that_do_not_fit_are_refused():
    usage = "quantizer.rvq_rest.vq.layers.1._codebook.cluster_usage"
    state = native()
    state[usage] = state[usage][:-1]
    with pytest.raises(CheckpointError, match="expected tensors whose shapes go together; got oth"):
        from_published("mimi", state, CONFIG)
    del state[usage]
    with pytest.raises(CheckpointError, match=f"expected a key '{usage}'; got"):
        from_published("mimi", state, CONFIG)


def test_another_family_is_refused():
    with pytest.raises(CheckpointError) as caught:
        from_published("mimi", network(), CONFIG)
    assert str(caught.value) == (
        "from_published('mimi'): expected a checkpoint of this family; got one without a level "
        "for what is said."
    )
