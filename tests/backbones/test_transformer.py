import pytest
import torch
import torch.nn.functional as F
from reference.transformer import block, prefixed
from torch import nn

from tokenizers_vq.backbones.transformer import (
    MLP,
    Attention,
    Block,
    Transformer,
    init_weights,
    learned,
)
from tokenizers_vq.errors import ConfigError


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_torch_with_packed_projections(masked):
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    x = torch.randn(2, 5, 12)
    mask = torch.ones(5, 5, dtype=torch.bool).tril() if masked else None
    expected, _ = theirs(x, x, x, attn_mask=None if mask is None else ~mask)
    close(ours(x, mask), expected)


@torch.no_grad()
def test_a_mask_per_item_hides_rows():
    x = torch.randn(2, 4, 8)
    seen = torch.tensor([[True, True, True, True], [True, True, False, False]])
    layer = Attention(8, 2).eval()
    masked = layer(x, seen[:, None, None, :])
    close(masked[0], layer(x)[0])
    close(masked[1, :2], layer(x[1:, :2])[0])


@torch.no_grad()
def test_a_block_is_the_written_formula():
    torch.manual_seed(1)
    layer = Block(8, 2)
    for p in layer.parameters():
        p.normal_()
    x = torch.randn(2, 5, 8)
    close(layer(x), block(prefixed(layer.state_dict(), ""), x, heads=2))


@torch.no_grad()
def test_swiglu_gates_with_the_first_half():
    layer = MLP(6, 4, "swiglu", bias=False)
    x = torch.randn(3, 6)
    gate, value = layer.up.weight.chunk(2)
    close(layer(x), (F.silu(x @ gate.T) * (x @ value.T)) @ layer.down.weight.T)


@torch.no_grad()
def test_normed_queries_and_keys_do_not_know_their_size():
    layer = Attention(8, 2, bias=False, qk_norm=True, scale=2.0)
    x = torch.randn(1, 4, 8)
    before = layer(x)
    layer.qkv.weight[:16] *= 100  # queries and keys
    torch.testing.assert_close(layer(x), before, rtol=1e-2, atol=1e-3)  # eps of the norm


@torch.no_grad()
def test_the_stack_is_norm_blocks_norm():
    stack = Transformer(8, 2, 2)
    x = torch.randn(1, 3, 8)
    h = stack.blocks[1](stack.blocks[0](stack.norm_in(x)))
    close(stack(x), stack.norm_out(h))


def test_learned_rows_and_first_weights():
    torch.manual_seed(0)
    assert learned(400, 100).std().item() == pytest.approx(0.1, rel=0.02)
    assert learned(400, 100, std=0.02).std().item() == pytest.approx(0.02, rel=0.02)
    stack = Transformer(64, 1, 2)
    init_weights(stack)
    assert stack.blocks[0].mlp.up.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert stack.blocks[0].mlp.up.bias.abs().max() == 0


def test_heads_and_kinds_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError) as error:
        Attention(10, 3)
    assert str(error.value) == (
        "Attention: expected heads that divide the width; got 3 heads and width 10. "
        "Correct the backbone config."
    )
    with pytest.raises(ConfigError) as error:
        MLP(4, 4, "relu")
    assert str(error.value) == "MLP: expected a kind of gelu, swiglu; got 'relu'."


@pytest.mark.parametrize("rows", [1, 5])
def test_the_last_block_can_do_without_rows_nobody_reads(rows):
    stack = Transformer(12, 2, 3, hidden=20)
    x, mask = torch.randn(2, 5, 12), torch.rand(2, 1, rows, 5) > 0.3
    mask[..., 2] = True
    part = slice(1, 3)
    torch.testing.assert_close(stack(x, mask, part), stack(x, mask)[:, part])
    assert stack.blocks[0].mlp.up.out_features == 20
