"""A run small enough to train in a test: 8 x 8 latents of 32 pixel pictures."""

import pytest

from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.run import compose

CNN = {
    "name": "cnn2d",
    "family": "magvit2",
    "width": 8,
    "channel_mult": [1, 1],
    "blocks": 1,
    "patch": 2,
    "conventions": {"groups": 4},
}
CONFIG = {"signal": {"kind": "image"}, "dim": 8, "encoder": CNN, "decoder": CNN}
FSQ = {"name": "fsq", "levels": [5, 5, 5]}
SMALL = [
    "backbone.dim=8",
    *[
        f"backbone.{half}.{option}"
        for half in ("encoder", "decoder")
        for option in ("width=8", "channel_mult=[1,1]", "patch=2", "conventions.groups=4")
    ],
    "data.train.n=24",
    "data.val.n=4",
    "data.train.size=32",
    "data.val.size=32",
    "data.batch_size=4",
    "optim.warmup_steps=2",
    "trainer=cpu",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=2",
    "callbacks.last.every_n_steps=3",
    "callbacks.publish.prior_items=2",
    "~logger.tensorboard",
]
GAN = [
    "objective=image_gan",
    "objective.weights.perceptual.lpips=null",
    "objective.discriminator={name:patchgan,width:8,layers:1,norm:group}",
    "objective.adversarial.discriminator_start=0",
    "objective.adversarial.start=1",
]


@pytest.fixture
def tokenizer():
    """An untrained tokenizer with FSQ."""
    return Tokenizer.from_config(CONFIG | {"quantizer": FSQ})


@pytest.fixture
def small(tmp_path):
    """Compose the configuration of a small run that writes below ``tmp_path``."""

    def configured(*overrides):
        return compose([*SMALL, f"outputs={tmp_path}/outputs", *overrides])

    return configured
