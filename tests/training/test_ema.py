"""The average of the weights."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.training.ema import EMA


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("codebook", torch.tensor([0.0]))
        self.register_buffer("count", torch.tensor(1000))


def trained(ema, values):
    """Take one optimizer step per value; return the module."""
    module, trainer = SimpleNamespace(tokenizer=Net()), SimpleNamespace(global_step=0)
    ema.on_fit_start(trainer, module)
    ema.on_train_start(trainer, module)
    for value in values:
        trainer.global_step += 1
        with torch.no_grad():
            module.tokenizer.weight.fill_(value)
            module.tokenizer.codebook.fill_(value)
            module.tokenizer.count += 1
        for _ in range(2):  # the second batch of a step that accumulates two changes nothing
            ema.on_train_batch_end(trainer, module, None, None, 0)
    return module


def test_parameters_and_float_buffers_are_averaged_and_integers_copied():
    ema = EMA(decay=0.9, warmup=False)
    trained(ema, [1.0, 2.0])
    assert ema.average["weight"].item() == pytest.approx(0.9 * 0.1 + 0.2)
    assert ema.average["codebook"].item() == pytest.approx(0.9 * 0.1 + 0.2)
    assert ema.average["count"].item() == 1002


def test_warm_up_lets_the_first_steps_count_more():
    ema = EMA(decay=0.9, warmup=True)
    trained(ema, [1.0])
    assert ema.average["weight"].item() == pytest.approx(1 - 2 / 11)


def test_validation_sees_the_average_and_training_goes_on_with_the_weights():
    ema = EMA(decay=0.5, warmup=False)
    module = trained(ema, [1.0])
    ema.on_validation_start(None, module)
    assert module.tokenizer.weight.item() == 0.5
    ema.on_validation_end(None, module)
    assert module.tokenizer.weight.item() == 1.0
    with ema.applied(module):
        assert module.tokenizer.weight.item() == 0.5
    assert module.tokenizer.weight.item() == 1.0
    ema.put(module)
    assert module.tokenizer.weight.item() == 0.5


def test_a_checkpoint_brings_the_average_back():
    ema, other = EMA(decay=0.5), EMA(decay=0.5)
    module = trained(ema, [1.0])
    other.load_state_dict(ema.state_dict())
    other.on_fit_start(SimpleNamespace(global_step=1), module)
    assert torch.equal(other.average["weight"], ema.average["weight"])


def test_a_decay_outside_its_range_is_refused():
    with pytest.raises(ConfigError) as error:
        EMA(decay=1.5)
    assert str(error.value) == "EMA: expected decay from 0 to 1; got 1.5. Use 0.999 or so."
