import pytest
import torch
from reference.published_checks import check_strictness, compare, message, picture
from reference.published_vqgan import Net, Shape, run_fqgan

from tokenizers_vq.errors import ShapeError
from tokenizers_vq.published import from_published

SHAPE = Shape(attended=(1,), attended_up=(1,), names="llamagen")
KINDS = {
    "dual": [("visual_head", "vis"), ("semantic_head", "sem")],
    "triple": [("visual_head", "vis"), ("semantic_head_mid", "sem_mid"),
               ("semantic_head_high", "sem_high")],
}  # fmt: skip
CONFIG = {
    "ch": 32, "ch_mult": [1, 2], "codebook_size": 24, "codebook_embed_dim": 8, "z_channels": 16,
    "with_clip_supervision": False, "adapter": {"width": 64, "layers": 1, "heads": 4},
}  # fmt: skip


def make(kind):
    net, x = Net(), picture(2, 12, 12)
    made = run_fqgan(net, x, SHAPE, 24, KINDS[kind], 1, 4)
    unused = {f"quantize_{short}.codebook_used": torch.zeros(8) for _, short in KINDS[kind]}
    return {**net.state, **unused}, x, made


@pytest.fixture(scope="module")
def dual():
    return make("dual")


def test_two_codebooks_are_the_reference(dual):
    state, x, made = dual
    tok = compare("fqgan", state, CONFIG, x, made)
    assert tok.quantizer.codebook_sizes == (24, 24)
    assert tok.encoder.size == (12, 12)


def test_three_codebooks_are_the_reference():
    state, x, made = make("triple")
    heads = {
        "mid_sem_feat_pred.ln_pre.weight": torch.ones(4),
        "high_sem_feat_pred.x": torch.ones(4),
    }
    compare("fqgan", {**state, **heads}, CONFIG, x, made)


def test_prediction_heads_are_left_out(dual):
    state, x, made = dual
    compare("fqgan", {**state, "feat_pred_head.upscale.0.weight": torch.ones(4)}, CONFIG, x, made)


def test_another_size_is_named(dual):
    with pytest.raises(ShapeError) as error:
        from_published("fqgan", dual[0], CONFIG).encode(picture(1, 16, 16))
    assert str(error.value).splitlines()[0] == (
        "FQGANEncoder: expected a signal of (12, 12) samples; got (16, 16). Resize it: this "
        "backbone has learned positions for one size."
    )


def test_other_files_are_named(dual):
    check_strictness(
        "fqgan", dual[0], CONFIG, key="encoder.semantic_head.0.ln_post.bias",
        shown="encoder.adapters.1.transformer.norm_out.bias",
    )  # fmt: skip
    wrong = {**CONFIG, "adapter": {"width": 64, "layers": 2}}
    assert message("fqgan", dual[0], wrong) == (
        "from_published('fqgan') adapter: expected layers of 1, as the tensors have it; got 2 in "
        "config. Pass the constructor values of this checkpoint."
    )
