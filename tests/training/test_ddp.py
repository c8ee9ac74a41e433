"""Two processes train as one process with the joined batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tokenizers_vq.training.run import compose, run
from training.conftest import GAN, SMALL

ROOT = Path(__file__).parents[2]
RECIPE = [
    *SMALL,
    *GAN,
    "objective.adversarial.start=0",
    "objective.weights.adv.r1=1",
    "objective.adversarial.adaptive=true",
    "quantizer=vq_ema",
    "quantizer.codebook_size=64",
    "quantizer.code_dim=8",
    # random picks among the tokens depend on their order, which accumulation changes
    "quantizer.kmeans_init=none",
    "quantizer.restart_threshold=0",
    "trainer.max_steps=3",
    "trainer.precision=64-true",
    "trainer.val_check_interval=3",
    "optim.accumulate=2",
]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run folders of one process with batches of 4, and of two with batches of 2."""
    one, two = (tmp_path_factory.mktemp("runs") / name for name in ("one", "two"))
    run(compose([*RECIPE, f"folder={one}"]))
    words = [word for word in RECIPE if word != "trainer=cpu"]
    # --debug: whatever goes wrong shows
    process = subprocess.run(
        [sys.executable, ROOT / "train.py", "--debug", *TWO[:1], *words, *TWO[1:], f"folder={two}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return one, two


def checkpoint(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_weights_and_codebook_are_those_of_the_joined_batch(folders):
    one, two = (checkpoint(folder)["state_dict"] for folder in folders)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: n + m
        )


def test_gradients_of_both_sides_are_those_of_the_joined_batch(folders):
    one, two = (checkpoint(folder)["optimizer_states"] for folder in folders)
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        for index, state in first["state"].items():
            # the moving average of the gradients
            torch.testing.assert_close(
                second["state"][index]["exp_avg"], state["exp_avg"], atol=1e-6, rtol=1e-5
            )


def test_one_process_writes_and_the_numbers_of_validation_are_of_all_items(folders):
    one, two = ((folder / "metrics.csv").read_text().splitlines() for folder in folders)
    assert len(one) == len(two)
    rows = [dict(zip(text[0].split(","), text[-1].split(","), strict=True)) for text in (one, two)]
    for name in ("val/psnr", "val/recon/l1", "val/codebook/usage", "val/codebook/perplexity"):
        assert float(rows[1][name]) == pytest.approx(float(rows[0][name]), rel=1e-5)
    assert (folders[1] / "tokenizer" / "model.safetensors").is_file()
