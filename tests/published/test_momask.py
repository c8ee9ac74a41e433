"""Imported MoMask gives what functions written from the paper give, at every depth."""

import torch
from reference import motion
from reference.published_checks import check_strictness, message

from tokenizers_vq.errors import CheckpointError
from tokenizers_vq.published import from_published


@torch.no_grad()
def test_tokens_and_features_are_those_of_the_formulas():
    state = motion.make(stages=3)
    tok = from_published("momask", {"vq_model": state, "ep": 3})
    x = torch.randn(2, 23, 12, generator=torch.Generator().manual_seed(1))
    z = motion.encode(state, x)
    indices, q = motion.quantize(state, z)
    codes = tok.encode(x)
    assert torch.equal(codes.indices, indices)
    torch.testing.assert_close(tok.decode(codes, raw=True), motion.decode(state, q))
    first = {k: v for k, v in state.items() if "layers.1" not in k and "layers.2" not in k}
    _, q = motion.quantize(first, z)
    torch.testing.assert_close(tok.decode(codes, 1, raw=True), motion.decode(state, q))


def test_strict_both_ways():
    state = motion.make(stages=2)
    key, ours = "encoder.model.3.1.model.2.conv2.weight", "encoder.layers.9.conv2.weight"
    check_strictness("momask", state, None, key=key, shown=ours)
    assert message("momask", state, {"num_quantizers": 6}, CheckpointError) == (
        "from_published('momask'): expected num_quantizers of 2, as the tensors have it; got 6 in "
        "config. Pass the constructor values of this checkpoint."
    )
