import pytest
import torch
from torch import nn

from tokenizers_vq.backbones import text_tower
from tokenizers_vq.backbones.titok import TiTokDecoder, TiTokEncoder
from tokenizers_vq.configs import config_names, read_config
from tokenizers_vq.errors import ConfigError, MissingExtraError, ShapeError
from tokenizers_vq.registry import build
from tokenizers_vq.types import SignalSpec

IMAGE = SignalSpec("image")
TINY = {
    "dim": 6, "signal": IMAGE, "size": 16, "patch": 4, "width": 8, "layers": 1, "heads": 2,
    "num_tokens": 5,
}  # fmt: skip
PIXELS = {"dim": 4, "family": "maskgit", "width": 8, "channel_mult": (1, 1, 1), "blocks": 1}
# Parameters of the published models and, of them, of the codebook.
PUBLISHED = {
    "titok_l32": (641_054_735, 4096 * 12),
    "titok_b64": (204_814_095, 4096 * 12),
    "titok_s128": (83_674_639, 4096 * 12),
    "titok_bl64": (390_016_148, 8192 * 64),
    "tatitok_bl32": (390_800_532, 8192 * 64),
    "one_d_piece_s256": (83_871_247, 4096 * 12),
}
# The same in millions, as far as they are known. Continuous models also predict a variance of each
# of 16 channels, with 16 * (width + 1) parameters.
MILLIONS = {
    "titok_bl128": (390.18, 8192 * 64),
    "titok_sl256": (330.26, 8192 * 64),
    "titok_ll32_vae": (606.88, 16 * 1025),
    "titok_bl64_vae": (389.42, 16 * 769),
    "titok_bl128_vae": (389.58, 16 * 769),
    "one_d_piece_b256": (205.26, 4096 * 12),
    "one_d_piece_l256": (641.74, 4096 * 12),
}
# Those that differ from others by what reads a caption, and by 32 tokens.
WORDS = 769 * 1024 + 77 * 1024
LATENTS = 32 * (768 + 768 + 1024)
RELATED = {
    "tatitok_bl64": ("titok_bl64", WORDS),
    "tatitok_bl128": ("titok_bl128", WORDS),
    "tatitok_bl64_vae": ("titok_bl64_vae", WORDS),
    "tatitok_bl32_vae": ("titok_bl64_vae", WORDS - LATENTS),
}


def parts(name: str) -> list[nn.Module]:
    config = read_config("backbone", name)
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        return [build(part, config[part], **shared) for part in ("encoder", "decoder")]


def parameters(name: str) -> int:
    return sum(p.numel() for module in parts(name) for p in module.parameters())


def decoder(**options):
    torch.manual_seed(0)
    net = TiTokDecoder(**TINY, **options).eval()
    for p in net.parameters():  # larger than training starts, so that all of it matters
        p.data.normal_(std=0.5)
    return net


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    total, rest = PUBLISHED[name]
    assert parameters(name) + rest == total


@pytest.mark.parametrize("name", MILLIONS)
def test_parameter_counts_are_near_the_published_ones(name):
    total, rest = MILLIONS[name]
    assert (parameters(name) + rest) / 1e6 == pytest.approx(total, abs=0.006)


@pytest.mark.parametrize("name", RELATED)
def test_parameter_counts_differ_by_captions_and_tokens(name):
    other, more = RELATED[name]
    assert parameters(name) == parameters(other) + more


def test_the_continuous_one_with_a_small_encoder_is_near_the_published_count():
    assert (parameters("tatitok_sl128_vae") + 16 * 513) / 1e6 == pytest.approx(330.3, abs=0.05)


def test_every_published_size_is_counted():
    names = {n for n in config_names("backbone") if n.startswith(("titok", "tatitok", "one_d"))}
    assert names == {*PUBLISHED, *MILLIONS, *RELATED, "tatitok_sl128_vae"}


def test_token_counts_are_the_published_ones():
    encoder, _ = parts("titok_l32")
    assert encoder.counts == (32,)
    encoder, one_d_piece = parts("one_d_piece_s256")
    assert encoder.counts == one_d_piece.counts == tuple(range(1, 257))


@torch.no_grad()
def test_scrambling_reads_rows_as_columns():
    torch.manual_seed(0)
    plain, scrambled = TiTokEncoder(**TINY), TiTokEncoder(**TINY, scramble=True)
    scrambled.load_state_dict(plain.state_dict())
    for encoder in (plain, scrambled):  # the first 6 of 8 channels, to see what lies where
        encoder.to_latent.weight.copy_(torch.eye(8)[:6])
    x = torch.rand(1, 3, 16, 16)
    wide = nn.Linear(8, 8)
    wide.weight.data, wide.bias.data = torch.eye(8), torch.zeros(8)
    plain.to_latent = wide
    memory = plain(x).flatten()  # 5 rows of 8
    for token in range(5):
        for channel in range(6):
            assert scrambled(x)[0, token, channel] == memory[channel * 5 + token]


@torch.no_grad()
def test_a_prefix_is_the_first_latents():
    encoder = TiTokEncoder(**TINY, prefixes=True)
    x = torch.rand(2, 3, 16, 16)
    assert encoder(x, num_tokens=2).equal(encoder(x)[:, :2])


@torch.no_grad()
def test_missing_latents_are_as_if_they_were_never_there():
    net = decoder(prefixes=True)
    z = torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    torch.testing.assert_close(net(z, mask)[0], net(z)[0])
    torch.testing.assert_close(net(z, mask)[1:], net(z[1:, :2]), rtol=1e-4, atol=1e-5)


def test_training_drops_the_tail_evenly():
    net = decoder(prefixes=True).train()
    lengths = []
    net.from_latent.register_forward_hook(lambda module, given, out: lengths.append(out.shape[1]))
    for _ in range(200):
        net(torch.zeros(1, 5, 6))
    assert set(lengths) == {1, 2, 3, 4, 5}
    assert all(20 <= lengths.count(n) <= 62 for n in range(1, 6))  # 40 +- 4 deviations
    lengths.clear()
    net.eval()(torch.zeros(1, 5, 6))
    assert lengths == [5]


@torch.no_grad()
def test_pixels_come_from_the_expected_code():
    net = decoder(codes=7, pixels=PIXELS)
    z = torch.randn(2, 5, 6)
    scores = net.logits(z)
    assert scores.shape == (2, 4, 4, 7)
    torch.testing.assert_close(net(z), net.pixels(scores.softmax(-1) @ net.codebook))
    assert net.last_layer is net.pixels.conv_out.weight


def test_a_decoder_of_the_first_stage_has_scores_only():
    net = decoder(codes=7)
    assert net.last_layer is net.scores.out.weight
    with pytest.raises(ConfigError) as error:
        net(torch.zeros(1, 5, 6))
    assert str(error.value).split(". ")[0] == (
        "TiTokDecoder: expected a decoder with pixels; got one of the first stage, with scores of "
        "codes only"
    )
    with pytest.raises(ConfigError, match="expected a decoder that scores codes"):
        decoder().logits(torch.zeros(1, 5, 6))


@torch.no_grad()
def test_a_caption_changes_the_picture():
    net = decoder(text=True)
    z, words = torch.randn(2, 5, 6), torch.randn(2, 77, 768)
    assert net.options.keys() == {"text"}
    torch.testing.assert_close(net(z), net(z, text=torch.zeros(2, 77, 768)))
    assert (net(z, text=words) - net(z)).abs().max() > 1e-3
    torch.testing.assert_close(net(z, text=words)[1:], net(z[1:], text=words[1:]))
    assert decoder().options == {}


@torch.no_grad()
def test_captions_are_read_by_the_tower(monkeypatch):
    features = {"a dog": 1.0, "a cat": 2.0}
    monkeypatch.setattr(
        text_tower,
        "tower",
        lambda: lambda texts: torch.stack([torch.full((77, 768), features[t]) for t in texts]),
    )
    net, z = decoder(text=True), torch.randn(2, 5, 6)
    expected = net(z, text=torch.tensor([2.0, 1.0])[:, None, None].expand(2, 77, 768))
    torch.testing.assert_close(net(z, text=["a cat", "a dog"]), expected, rtol=1e-4, atol=1e-5)
    assert net(z[:1], text="a cat").shape == (1, 3, 16, 16)
    with pytest.raises(ShapeError) as error:
        net(z, text=["a cat"])
    assert str(error.value) == (
        "decode text: expected 2 captions, one per item; got 1. Repeat one for all items."
    )
    with pytest.raises(ShapeError, match=r"decode text: expected shape \(B, 77, 768\)"):
        net(z, text=torch.zeros(2, 768))


def test_captions_without_a_tower_name_the_package(monkeypatch):
    monkeypatch.setattr(text_tower, "find_spec", lambda name: None)
    text_tower.tower.cache_clear()
    with pytest.raises(MissingExtraError) as error:
        decoder(text=True)(torch.zeros(1, 5, 6), text=["a dog"])
    assert str(error.value) == (
        "decode text: expected open_clip or transformers, whose CLIP reads captions; got neither. "
        "Run pip install open_clip_torch, or pass features (B, 77, 768)."
    )


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError) as error:
        TiTokEncoder(**{**TINY, "num_tokens": 0})
    assert str(error.value) == (
        "titok: expected a size that is a multiple of the patch, and a token; got size 16, "
        "patch 4, num_tokens 0. Correct the backbone config."
    )
    with pytest.raises(ConfigError, match="expected codes and a dim in front of pixels"):
        decoder(pixels=PIXELS)
    with pytest.raises(ConfigError, match="expected pixels of stride 4, the patch; got 8"):
        decoder(codes=7, pixels={**PIXELS, "channel_mult": (1, 1, 1, 1)})
    with pytest.raises(ShapeError, match=r"expected 5 tokens; got 3"):
        decoder()(torch.zeros(1, 3, 6))
