"""Mimi: both layouts of the same weights are one tokenizer."""

import re

import pytest
import torch

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
    assert first.config == second.config
    for (key, value), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), key
    x = torch.rand(1, 1, 200) - 0.5
    assert torch.equal(first.encode(x).indices, second.encode(x).indices)


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


def test_another_family_is_refused():
    with pytest.raises(CheckpointError) as caught:
        from_published("mimi", network(), CONFIG)
    assert str(caught.value) == (
        "from_published('mimi'): expected a checkpoint of this family; got one without a level "
        "for what is said."
    )
