"""Pictures and schedules."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.callbacks import QuantizerSchedule, save_grid
from training.conftest import CONFIG


def test_a_grid_has_a_row_per_argument_and_a_column_per_picture(tmp_path):
    dark, light = torch.full((3, 3, 4, 6), -1.0), torch.full((3, 1, 4, 6), 2.0)
    save_grid(tmp_path / "grid.png", dark)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (6, 24, 3)
    assert pixels[3, 3].tolist() == [0, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]  # the frame
    save_grid(tmp_path / "grey.png", light, light - 2)
    pixels = np.asarray(Image.open(tmp_path / "grey.png"))
    assert pixels.shape == (12, 24, 3)
    assert pixels[9, 3].tolist() == [128, 128, 128]


LFQ = {"name": "lfq", "bits": 4}


def module_with(quantizer):
    return SimpleNamespace(tokenizer=Tokenizer.from_config(CONFIG | {"quantizer": quantizer}))


def test_a_schedule_multiplies_the_weights_of_all_parts():
    module = module_with({"name": "residual", "stages": {"repeat": 2, "of": LFQ}})
    parts = [
        part for part in module.tokenizer.quantizer.modules() if hasattr(part, "entropy_weight")
    ]
    before = [part.entropy_weight for part in parts]
    assert before
    assert before[0] > 0
    callback = QuantizerSchedule({"entropy_weight": {"from": 3.0, "to": 1.0, "over": 10}})
    callback.on_fit_start(None, module)
    for step, factor in ((0, 3.0), (5, 2.0), (99, 1.0)):
        callback.on_train_batch_start(SimpleNamespace(global_step=step), module, None, 0)
        after = [part.entropy_weight for part in parts]
        assert after == pytest.approx([factor * value for value in before])


def test_a_schedule_depends_on_the_step_alone():
    perturbed = {"name": "perturbed", "rate": 0.8, "inner": {"name": "vq", "codebook_size": 8}}
    schedules = {"rate": {"points": [[4, 1.0], [12, 0.0]]}}  # whole until 4, then down to none
    straight, resumed = module_with(perturbed), module_with(perturbed)
    callbacks = [QuantizerSchedule(schedules) for _ in range(2)]
    callbacks[0].on_fit_start(None, straight)
    for step in range(8):
        callbacks[0].on_train_batch_start(SimpleNamespace(global_step=step), straight, None, 0)
    callbacks[1].on_fit_start(None, resumed)
    callbacks[1].on_train_batch_start(SimpleNamespace(global_step=7), resumed, None, 0)
    rates = [module.tokenizer.quantizer.rate for module in (straight, resumed)]
    assert rates == pytest.approx([0.8 * 5 / 8] * 2)
    assert rates[0] == rates[1]


def test_a_schedule_of_nothing_is_refused():
    module = module_with({"name": "fsq", "levels": [5, 5, 5]})
    with pytest.raises(ConfigError) as error:
        QuantizerSchedule({"entropy_weight": 1.0}).on_fit_start(None, module)
    assert str(error.value) == (
        "QuantizerSchedule: expected a number that the quantizer has; got 'entropy_weight', "
        "which FSQ lacks. Take the schedule out."
    )
