import math

import pytest

from tokenizers_vq.training.run import compose, run

SYSTEMS = {  # backbone, quantizer and options: one small relative of each published system
    "open_magvit2": ("tiny_cnn2d_magvit2", "lfq", "quantizer.bits=10"),
    "wetok": ("tiny_cnn2d_magvit2", "group_lfq"),
    "simvq": ("tiny_cnn2d_magvit2", "simvq", "backbone.decoder.conventions.adaptive=false"),
    "maskgit_vqgan": ("tiny_cnn2d_maskgit", "vq", "backbone.encoder.conventions.down=average"),
    "maskbit": ("tiny_cnn2d_maskgit", "lfq", "quantizer.bits=10"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_twenty_steps_train(system, tmp_path):
    backbone, quantizer, *options = SYSTEMS[system]
    small = ["data.train.n=16", "data.val.n=4", "data.train.size=32", "data.val.size=32"]
    words = [f"backbone={backbone}", f"quantizer={quantizer}", *small, "data.batch_size=4"]
    words += [f"+{word}" if "conventions" in word else word for word in options]
    words += ["callbacks.publish.prior_items=2", f"outputs={tmp_path}", "callbacks.ema=null"]
    result = run(compose([*words, "trainer.max_steps=20"]))
    assert (result.step, result.finished) == (20, True)
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert result.metrics["val/psnr"] > 4  # generated pictures begin at about 5 dB
