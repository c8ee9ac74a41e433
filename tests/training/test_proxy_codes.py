"""TiTok's two stages: codes of a frozen tokenizer first, then pixels with the encoder frozen."""

import math

import pytest
import torch
import torch.nn.functional as F

from tokenizers_vq.backbones.titok import TiTokDecoder
from tokenizers_vq.configs import read_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.proxy_codes import ProxyCodes
from tokenizers_vq.training.run import compose, run
from training.test_module import pytestmark  # noqa: F401  # the same harmless warnings

NET = {"name": "cnn2d", "family": "maskgit", "width": 8, "channel_mult": [1, 1, 1, 1], "blocks": 1}
BASE = {
    "signal": {"kind": "image", "channels": 3}, "dim": 8, "encoder": NET, "decoder": NET,
    "quantizer": {"name": "vq", "codebook_size": 16},
}  # fmt: skip


def titok(codes=16, **pixels):
    torch.manual_seed(0)
    config = read_config("backbone", "tiny_titok")
    options = {key: value for key, value in NET.items() if key != "name"}
    decoder = {**config["decoder"], "codes": codes, "pixels": {"dim": 8, **options, **pixels}}
    head = {"name": "vq", "codebook_size": 32}
    return Tokenizer.from_config({**config, "decoder": decoder, "quantizer": head})


def test_the_term_is_the_cross_entropy_to_the_frozen_codes():
    tokenizer, proxy = titok(), ProxyCodes(BASE)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    made = proxy(tokenizer, x, 0)
    assert made.x_hat.numel() == 0
    with torch.no_grad():
        codes = proxy.source.encode(x).indices.flatten()
        scores = tokenizer.decoder.logits(made.quantized.z_q).flatten(0, 2)
    expected = -F.log_softmax(scores, -1)[torch.arange(len(codes)), codes].mean()
    assert made.terms["proxy"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert made.terms["proxy"].item() == pytest.approx(math.log(16), rel=0.1)  # knows nothing yet
    made.terms["proxy"].backward()
    assert tokenizer.encoder.embed.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in tokenizer.decoder.pixels.parameters())
    assert all(p.grad is None for p in proxy.source.parameters())


@torch.no_grad()
def test_the_pixels_behind_the_scores_are_those_of_the_frozen_tokenizer():
    tokenizer, proxy = titok(), ProxyCodes(BASE)
    proxy(tokenizer, torch.zeros(1, 3, 64, 64), 0)
    codes = torch.randint(16, (1, 8, 8, 1))
    sure = 1e4 * F.one_hot(codes[..., 0], 16).float()
    tokenizer.decoder.scores.forward = lambda rows: sure
    got = tokenizer.decoder(torch.zeros(1, 16, 32))
    torch.testing.assert_close(got, proxy.source.decode(codes, raw=True), rtol=1e-4, atol=1e-5)


def test_decoders_and_sources_that_do_not_fit_are_refused():
    x = torch.zeros(1, 3, 64, 64)
    plain = Tokenizer.from_config(BASE)
    with pytest.raises(ConfigError) as error:
        ProxyCodes(BASE)(plain, x, 0)
    assert str(error.value) == (
        "ProxyCodes: expected a titok decoder with codes and pixels; got CNN2dDecoder without. "
        "Set backbone.decoder.codes and .pixels."
    )
    with pytest.raises(ConfigError) as error:
        ProxyCodes(BASE)(titok(codes=20), x, 0)
    assert str(error.value) == (
        "ProxyCodes: expected a source with one codebook and a decoder as behind the scores, "
        "(20, 8); got (16, 8). Set backbone.decoder.codes and .pixels to the sizes of the source."
    )


def test_both_stages_train_and_the_second_leaves_the_codes_alone(tmp_path):
    words = ["data.train.n=8", "~logger.tensorboard", "callbacks.recon=null", f"outputs={tmp_path}"]
    words += ["trainer.log_every_n_steps=1", "optim.lr=1e-3"]
    first = run(compose(["experiment=tiny_titok_codes", *words]))
    assert first.metrics["train/model/proxy"] < math.log(64)
    words += ["trainer.max_steps=5", f"start={first.folder / 'tokenizer'}"]
    second = run(compose(["experiment=tiny_titok_pixels", *words]))
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    assert second.tokenizer.encode(x).indices.equal(first.tokenizer.encode(x).indices)
    moved = second.tokenizer.decoder.state_dict()
    for key, value in first.tokenizer.decoder.state_dict().items():
        assert not moved[key].equal(value), key


@pytest.mark.parametrize("stage", ["codes", "pixels"])
def test_one_d_piece_trains_on_prefixes_in_both_stages(stage, tmp_path, monkeypatch):
    lengths = {True: [], False: []}
    words_of = TiTokDecoder._words

    def noted(decoder, text, z_q):
        lengths[decoder.training].append(z_q.shape[1])
        return words_of(decoder, text, z_q)

    monkeypatch.setattr(TiTokDecoder, "_words", noted)
    words = ["trainer.max_steps=8", "~logger.tensorboard", "callbacks.recon=null"]
    words += ["data.train.n=8", f"outputs={tmp_path}"]
    result = run(compose([f"experiment=tiny_one_d_piece_{stage}", *words]))
    assert len(lengths[True]) == 8
    assert len({*lengths[True]}) > 3
    assert {*lengths[True]} <= {*range(1, 17)}
    assert {*lengths[False]} == {16}  # validation sees all of them
    codes = result.tokenizer.encode(torch.zeros(1, 3, 64, 64), num_tokens=3)
    assert codes.indices.shape == (1, 3, 1)
