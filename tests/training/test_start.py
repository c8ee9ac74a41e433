import pytest
import torch

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.run import compose, run
from tokenizers_vq.training.start import begin_with, widen_for_noise


def small(**decoder):
    config = tokenizer_config("tiny_cnn2d_magvit2", "group_lfq")
    encoder = {**config["encoder"], "width": 8, "channel_mult": [1, 2]}
    return Tokenizer.from_config({**config, "encoder": encoder, "decoder": {**encoder, **decoder}})


def test_a_widened_decoder_begins_as_the_one_it_comes_from():
    first = small().eval()
    wide = widen_for_noise(first)
    assert wide.decoder.noise_channels == 32
    assert wide.config["decoder"]["noise_channels"] == 32
    assert not wide.training
    x = torch.rand(2, 3, 16, 24) * 2 - 1
    codes = first.encode(x)
    assert torch.equal(wide.encode(x).indices, codes.indices)
    expected = first.decode(codes, raw=True)
    for _ in range(2):  # whatever the noise
        torch.testing.assert_close(wide.decode(codes.indices, raw=True), expected)
    assert all(p.requires_grad for p in wide.decoder.parameters())
    assert not any(p.requires_grad for p in wide.encoder.parameters())
    (wide.decoder(wide.encoder(x)) ** 2).mean().backward()
    assert wide.decoder.conv_in.weight.grad[:, 32:].abs().sum() > 0  # the noise can be learned


def test_other_sizes_are_named():
    with pytest.raises(CheckpointError) as error:
        begin_with(small(blocks=2), small())
    assert str(error.value) == (
        "start: expected a tokenizer of the same sizes; got 18 tensors that are missing or of "
        "another shape (first: decoder.mid.1.norm1.weight). Use the backbone and the quantizer it "
        "was trained with."
    )


def test_a_tokenizer_without_a_config_cannot_be_widened():
    tokenizer = small()
    bare = Tokenizer(tokenizer.encoder, tokenizer.quantizer, tokenizer.decoder)
    with pytest.raises(ConfigError) as error:
        widen_for_noise(bare)
    assert str(error.value) == (
        "widen_for_noise: expected a tokenizer from a config whose decoder takes noise_channels; "
        "got CNN2dDecoder. Use a cnn2d decoder."
    )


def test_the_second_stage_starts_from_the_first(tmp_path):
    small = [
        "data.train.n=8",
        "data.val.n=2",
        "data.batch_size=2",
        "trainer.max_steps=2",
        "callbacks.publish.prior_items=2",
        "backbone.encoder.width=8",
        "backbone.decoder.width=8",
        f"outputs={tmp_path}",
        "experiment=synthetic_wetok_generative",
    ]
    one = run(compose([*small, "backbone.decoder.noise_channels=0", "trainable=[]"]))
    two = run(compose([*small, f"start={one.folder / 'tokenizer'}"]))
    first, second = one.tokenizer, two.tokenizer
    assert torch.equal(first.encoder.conv_in.weight, second.encoder.conv_in.weight)
    assert not torch.equal(first.decoder.conv_out.weight, second.decoder.conv_out.weight)
    assert second.decoder.conv_in.weight[:, 32:].abs().sum() > 0
