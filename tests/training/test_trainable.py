"""Frozen parts neither train, nor update statistics, nor are in the optimizer."""

import pytest
import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.module import TokenizerModule
from tokenizers_vq.training.optim import Recipe
from tokenizers_vq.training.run import run
from training.conftest import CONFIG
from training.test_module import fit, pytestmark  # noqa: F401  # the same harmless warnings

EMA_VQ = {"name": "vq", "codebook_size": 16, "codebook_update": "ema"}


def module_of(*trainable):
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_config(CONFIG | {"quantizer": EMA_VQ})
    objective = Objective({"recon/l1": 1.0, "quantizer/loss": 1.0})
    return TokenizerModule(tokenizer, objective, Recipe(), trainable=trainable)


def changed(module, steps=2):
    """Return which entries of the tokenizer's state a run changes."""
    before = {name: value.clone() for name, value in module.tokenizer.state_dict().items()}
    trainer = fit(module, steps)
    after = module.tokenizer.state_dict()
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    names = {name for name, p in module.tokenizer.named_parameters() if id(p) in held}
    return {name for name in after if not torch.equal(before[name], after[name])}, names


def parts(names):
    return {name.partition(".")[0] for name in names}


def test_everything_trains_without_names():
    moved, held = changed(module_of())
    assert parts(moved) == {"encoder", "quantizer", "decoder"}
    assert parts(held) >= {"encoder", "decoder"}


def test_only_the_named_parts_train():
    module = module_of("decoder")
    moved, held = changed(module)
    assert (parts(moved), parts(held)) == ({"decoder"}, {"decoder"})
    module.train()
    assert not module.tokenizer.encoder.training
    assert not module.tokenizer.quantizer.training
    assert module.tokenizer.decoder.training


def test_names_reach_below_a_part():
    module = module_of("decoder.conv_out", "encoder.conv_in.weight")
    moved, held = changed(module)
    assert moved == held
    assert moved >= {"decoder.conv_out.weight", "encoder.conv_in.weight"}
    assert {name.rpartition(".")[0] for name in moved} == {"decoder.conv_out", "encoder.conv_in"}


def test_a_quantizer_may_follow_a_frozen_encoder():
    moved, _ = changed(module_of("quantizer", "decoder.conv_out"))
    assert parts(moved) == {"quantizer", "decoder"}


def test_a_name_that_nothing_has_is_refused():
    with pytest.raises(ConfigError) as error:
        module_of("decodr")
    assert str(error.value).startswith("trainable: there is no 'decodr'; choose one of decoder, ")


def test_a_config_names_the_parts(small):
    cfg = small("trainable=[decoder]", "trainer.max_steps=1")
    assert run(cfg).step == 1
