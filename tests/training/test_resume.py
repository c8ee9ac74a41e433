"""A run that was killed or stopped ends where the uninterrupted run ends, bit for bit."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tokenizers_vq
from tokenizers_vq.training.run import compose, main, run
from training.conftest import GAN, SMALL

# 24 items: 6 batches an epoch, 2 batches a step
RECIPE = [
    *SMALL,
    *GAN,
    "objective.weights.adv.r1=1",
    "objective.adversarial.r1_every=2",
    "objective.adversarial.adaptive=true",
    "quantizer=robusttok",
    "quantizer.inner.codebook_size=64",
    "quantizer.inner.code_dim=8",
    "+quantizer.inner.codebook_update=ema",
    "quantizer.share=1.0",
    "quantizer.count=4",
    "+callbacks.quantizer_schedule.schedules.rate={from: 1, to: 0, over: 9}",
    "optim.accumulate=2",
    "trainer.max_steps=12",
    "trainer.val_check_interval=5",
    "callbacks.ema.decay=0.9",
    "callbacks.last.every_n_steps=5",
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Folder of the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run(compose([*RECIPE, f"folder={folder}"]))
    return folder


def states(folder):
    """Return everything of a checkpoint that is a tensor, by its path."""
    found = {}

    def walk(node, path):
        if isinstance(node, torch.Tensor):
            found[path] = node
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}/{key}")
        elif isinstance(node, list | tuple):
            for index, value in enumerate(node):
                walk(value, f"{path}/{index}")

    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    walk({key: checkpoint[key] for key in ("state_dict", "optimizer_states", "callbacks")}, "")
    return found


def check_same_end(one, two):
    """Compare weights, optimizers, averages, random states, numbers and the published files."""
    first, second = states(one), states(two)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for part in ("discriminator", "average", "exp_avg", "random"):
        assert any(part in name for name in first)
    with (one / "metrics.csv").open() as a, (two / "metrics.csv").open() as b:
        assert list(csv.reader(a)) == list(csv.reader(b))
    for file in ("model.safetensors", "discriminator.safetensors"):
        assert (one / "tokenizer" / file).read_bytes() == (two / "tokenizer" / file).read_bytes()


def test_after_kill_9_in_the_middle_of_an_epoch(straight, tmp_path):
    folder = tmp_path / "killed"
    script = Path(__file__).with_name("killed.py")
    process = subprocess.run(
        [sys.executable, script, *RECIPE, f"folder={folder}"],
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        timeout=180,
        check=False,
    )
    # killed at step 8, after one of its two batches; the checkpoint is of step 5
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    assert not (folder / "tokenizer").exists()
    result = run(compose([*RECIPE, f"folder={folder}", "resume=auto"]))
    assert (result.step, result.finished) == (12, True)
    check_same_end(straight, folder)


def test_after_ctrl_c(straight, tmp_path, capfd):
    folder = tmp_path / "stopped"
    # asked to stop in the first batch of step 6; step 6 ends the second epoch
    stop = f"+callbacks.stop={{_target_: training.killed.Signal, number: {signal.SIGINT}, step: 5}}"
    before = signal.getsignal(signal.SIGINT)
    assert main([*RECIPE, f"folder={folder}", stop]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"Stopped at step 6; saved {folder}/last.ckpt. "
        f"To go on, give the same command with resume={folder}"
    )
    tokenizer = tokenizers_vq.load(folder / "tokenizer")
    assert tokenizer.encode(torch.zeros(1, 3, 32, 32)).indices.shape == (1, 8, 8, 1)
    assert main([*RECIPE, f"resume={folder}"]) == 0
    check_same_end(straight, folder)
