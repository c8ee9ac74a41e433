"""The command line: what a run writes, sweeps, and sentences instead of tracebacks."""

import csv
import inspect
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

import tokenizers_vq
from tokenizers_vq import registry
from tokenizers_vq.data.synthetic import SyntheticImages
from tokenizers_vq.data.synthetic_motion import SyntheticMotion
from tokenizers_vq.data.synthetic_protein import SyntheticProtein
from tokenizers_vq.data.transforms import signal_to_image
from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.functional.frames import atoms_of
from tokenizers_vq.hub import load_discriminator
from tokenizers_vq.training.run import check, compose, conf, main, run, tokenizer_config
from tokenizers_vq.types import SignalSpec
from training.conftest import GAN, SMALL


def test_a_run_has_everything_in_one_folder(small, tmp_path):
    result = run(small(*GAN, "name=tiny.test"))
    (folder,) = (tmp_path / "outputs").iterdir()
    assert result.folder == folder
    assert folder.name.endswith("_tiny.test")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml",
        "last.ckpt",
        "metrics.csv",
        "recon",
        "tokenizer",
    ]
    pictures = sorted(path.name for path in (folder / "recon").iterdir())
    assert pictures == ["step_00000002.png", "step_00000004.png"]
    with Image.open(folder / "recon" / pictures[0]) as picture:
        assert picture.size == (4 * 34, 2 * 34)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss"]] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows if row["val/psnr"]] == ["2", "4"]
    assert float(rows[-1]["val/psnr"]) == result.metrics["val/psnr"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["optim"]["warmup_steps"] == 2


def test_the_published_tokenizer_has_the_averaged_weights_and_the_discriminator(small):
    result = run(small(*GAN, "callbacks.ema.decay=0.5"))
    loaded = tokenizers_vq.load(result.folder / "tokenizer")
    ours, theirs = result.tokenizer.state_dict(), loaded.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    checkpoint = torch.load(result.folder / "last.ckpt", weights_only=True)["state_dict"]
    assert not all(torch.equal(checkpoint[f"tokenizer.{name}"], ours[name]) for name in ours)
    critic = load_discriminator(result.folder / "tokenizer")
    for name, value in critic.state_dict().items():
        assert torch.equal(value, checkpoint[f"objective.discriminator.{name}"])


def test_training_lowers_the_loss(small):
    result = run(small("trainer.max_steps=40", "optim.lr=3e-3", "optim.floor=1", "name=learns"))
    with (result.folder / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_without_callbacks_and_loggers_nothing_but_the_configuration_is_written(small):
    overrides = [word for word in SMALL if not word.startswith(("callbacks", "~logger"))]
    cfg = compose([*overrides, *("callbacks=none", "logger=none"), f"outputs={small().outputs}"])
    result = run(cfg)
    assert [path.name for path in result.folder.iterdir()] == ["config.yaml"]
    assert result.step == 4


def test_a_sweep_trains_every_combination(tmp_path):
    words = [*SMALL, f"outputs={tmp_path}", "trainer.max_steps=1", "+quantizer.dim=8"]
    assert main(["-m", "quantizer=vq,fsq", *words]) == 0
    names = {path.name.partition("_")[2] for path in tmp_path.glob("20*")}
    assert {name.partition("_")[2] for name in names} == {
        "tiny_cnn2d_vq.synthetic_images",
        "tiny_cnn2d_fsq.synthetic_images",
    }


def test_the_config_of_the_tokenizer_is_backbone_and_quantizer(small):
    config = tokenizer_config(small("quantizer=fsq", "quantizer.levels=[4,4]"))
    assert sorted(config) == ["decoder", "dim", "encoder", "quantizer", "signal"]
    assert config["quantizer"] == {"name": "fsq", "levels": [4, 4]}


WRONG = {
    "quantizer=fqs": "quantizer: there is no 'fqs'; choose one of ",
    "quantzer=fsq": "train: there is no 'quantzer'; choose one of backbone, callbacks, compile, ",
    "foo.bar=1": "train: there is no 'foo'; choose one of backbone, callbacks, compile, ",
    "quantizer.level=[3]": "quantizer 'fsq' has no option 'level'; it takes ",
    "optim.lrr=1": "optim 'Recipe' has no option 'lrr'; it takes accumulate, betas, clip, ",
    "trainer.max_stps=1": "trainer 'Trainer' has no option 'max_stps'; it takes accelerator, ",
    "data.batchsize=1": "config 'data' has no option 'batchsize'; it takes batch_size, ",
    "objective.weights.recon.l3=1": "loss term: there is no 'recon/l3'; choose one of adv/bcr, ",
    "data=folder": "train: expected a value of data.root; got none. Add data.root=... to the ",
    "optim.lr=-1": "optim: expected lr and clip above 0, floor from 0 to 1, warmup_steps from 0 ",
    "experiment=nope": "experiment: there is no 'nope'; choose one of ",
    "resume=/nowhere": "train: expected a run folder or a checkpoint to resume; got /nowhere, ",
    "trainer.gradient_clip_val=1": "training: expected optim.clip; got trainer.gradient_clip_val. ",
    "trainer.precision=16-mixed": "training: expected trainer.precision of 32-true or bf16-mixed;",
    "trainer.max_steps=abc": "trainer.max_steps: expected int; got 'abc'. Correct trainer.max_",
    "data.train.size=abc": "data.train.size: expected int; got 'abc'. Correct data.train.size.",
    "data.batch_size=abc": "data.batch_size: expected int; got 'abc'. Correct data.batch_size.",
    "optim.lr=fast": "optim.lr: expected float; got 'fast'. Correct optim.lr.",
    "optim.betas=3": "optim.betas: expected tuple[float, float]; got 3. Correct optim.betas.",
    "backbone=tiny_seanet": "train: expected data of the backbone's kind, audio; got image. Add",
    "seed=abc": "train: expected a whole number as seed; got 'abc'. Set seed=0.",
    "backbone.dim=abc": "backbone: expected values of other types or ranges; got ValueError: ",
    "backbone.encoder.width=abc": "encoder 'cnn2d': expected options of other types; got TypeErr",
    "trainer.devices=abc": "trainer: expected values of other types or ranges; got TypeError: ",
    "objective.discriminator=3": "objective: expected values of other types or ranges; got TypeE",
    "quantizer=[fsq,vq]": "train: expected one name for quantizer; got a list. To run one after ",
    "seed=[": "no viable alternative at input '['",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_word_gets_a_sentence_and_exit_code_2(word, tmp_path, capfd):
    assert main([f"outputs={tmp_path}/outputs", word]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith(WRONG[word])
    assert len(lines) <= 2
    assert not list(tmp_path.glob("outputs/*/tokenizer"))


def test_misspelt_options_are_guessed(tmp_path, capfd):
    assert main([f"outputs={tmp_path}/outputs", "quantizer.level=[3]"]) == 2
    assert capfd.readouterr().err.endswith("Did you mean 'levels'?\n")


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        main(["--debug", "quantizer.level=[3]"])


def test_fp16_with_a_discriminator_is_refused(small):
    with pytest.raises(ConfigError) as error:
        run(small(*GAN, "trainer.precision=16-mixed"))
    assert str(error.value) == (
        "training: fp16 with a discriminator needs a gradient scaler we do not drive; "
        "use precision=bf16-mixed."
    )


def test_images_too_small_for_the_discriminator_stop_a_run_in_its_first_step(small):
    late = ["objective.adversarial.discriminator_start=9", "objective.adversarial.start=9"]
    with pytest.raises(ShapeError) as error:
        run(small(*GAN, *late, "objective.discriminator.layers=4"))
    assert str(error.value) == (
        "PatchGAN: expected images of at least 48 x 48 pixels; got 32 x 32. "
        "Use larger images, or fewer layers."
    )


def test_the_program_exits_with_2_and_no_traceback():
    root = Path(__file__).parents[2]
    process = subprocess.run(
        [sys.executable, root / "train.py", "quantizer=fqs"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("quantizer: there is no 'fqs'; choose one of binary_mapper, ")
    assert len(process.stderr.splitlines()) == 1


EXPERIMENTS = sorted(path.stem for path in (conf() / "experiment").glob("*.yaml"))
TINY = [name for name in EXPERIMENTS if name.startswith("tiny_")]
# recipes at the published sizes, with the bits per position that their papers state
PUBLISHED = {
    "alit": 12,
    "bsq_vit": 18,
    "dac_44k": 90,
    "flextok": math.log2(64000),
    "encodec_24k": 320,
    "fqgan": 28,
    "ibq": 14,
    "karl": 12,
    "llamagen_vq16": 14,
    "maskbit": 12,
    "momask": 54,
    "one_d_piece_codes": 12,
    "one_d_piece_pixels": 12,
    "open_magvit2_256": 18,
    "protein_lfq": 13,
    "simvq": 13,
    "speech_rvq": 64,
    "speech_rvq_gan": 64,
    "speechtokenizer": 80,
    "t2m_gpt": 9,
    "taming_f16": 14,
    "titok_codes": 12,
    "titok_pixels": 12,
    "titok_single": 13,
    "var": 12,
    "vqgan_plus": 12,
    "wavtokenizer_75": 12,
    "wetok": 32,
    "wetok_generative": 32,
}


def overrides_of(name, folder):
    """Return what makes an experiment small, and gives it photos where it asks for some."""
    words = ["trainer.max_steps=2", "data.batch_size=2", "callbacks.publish.prior_items=2"]
    if name.startswith("synthetic"):
        words += ["data.train.n=8", "data.val.n=2", "backbone.encoder.width=8"]
        words += ["backbone.decoder.width=8"]
    if name == "synthetic_gan":
        words += ["quantizer.codebook_size=64", "objective.discriminator.width=8"]
    if name.startswith("photos"):
        rows = ["file,licence_class", "a.png,open", "b.png,open", "c.png,research"]
        (folder / "manifest.csv").write_text("\n".join(rows))
        pictures = SyntheticImages(3, 300, seed=0)
        for index, stem in enumerate("abc"):
            signal_to_image(pictures[index]).save(folder / f"{stem}.png")
        words += [f"data.root={folder}"]
    if name == "mocap_rvq":
        for index, motion in enumerate(SyntheticMotion(n=3, frames=20)):
            np.save(folder / f"{index}.npy", motion.T.numpy())
        words += [f"data.root={folder}"]
    if name == "chains_lfq":
        for index, protein in enumerate(SyntheticProtein(n=3, residues=24, missing=0)):
            write_backbone(folder / f"{index}.pdb", atoms_of(protein).numpy())
        words += [f"data.root={folder}"]
    return [*words, f"outputs={folder / 'outputs'}"]


def write_backbone(path, atoms):
    lines = [
        f"ATOM  {3 * i + k + 1:5d}  {name:<3s} ALA A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        "  1.00  0.00"
        for i, residue in enumerate(atoms)
        for k, (name, (x, y, z)) in enumerate(zip(("N", "CA", "C"), residue, strict=True))
    ]
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("name", sorted({*EXPERIMENTS} - {*TINY} - {*PUBLISHED}))
def test_an_experiment_trains(name, tmp_path):
    result = run(compose([f"experiment={name}", *overrides_of(name, tmp_path)]))
    assert (result.step, result.finished) == (2, True)
    assert (result.folder / "tensorboard").is_dir()


TEACHERS = {"tiny_fqgan": ["semantic"], "tiny_flextok": ["repa"]}


def test_every_published_recipe_has_a_tiny_one():
    assert [name.removeprefix("tiny_") for name in TINY] == sorted(PUBLISHED)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_recipe_takes_20_steps_with_all_its_parts(name, tmp_path):
    words = ["~logger.tensorboard", "callbacks.recon=null", f"outputs={tmp_path}"]
    for target in TEACHERS.get(name, ()):
        torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
        words += [f"objective.features.{target}.weights={tmp_path / 'vit.pth'}"]
    cfg = compose([f"experiment={name}", *words])
    result = run(cfg)
    assert (result.step, result.finished) == (20, True)
    assert all(math.isfinite(value) for value in result.metrics.values())
    if cfg.objective.get("discriminator"):
        assert {"train/adv/gen", "train/adv/disc"} <= set(result.metrics)
    for group in ("model", "features"):
        for term in cfg.objective.weights.get(group, {}):
            assert f"train/{group}/{term}" in result.metrics


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_can_be_built(name):
    cfg = compose([f"experiment={name}", "data.root=/pictures"])
    check(cfg)
    instantiate(cfg.optim, _convert_="all")
    if cfg.objective.get("discriminator"):
        plain = OmegaConf.to_container(cfg.objective.discriminator)
        takes = inspect.signature(registry.resolve("discriminator", plain.pop("name"))).parameters
        assert set(plain) <= set(takes)
        instantiate(cfg.objective.adversarial, _convert_="all")
    config = tokenizer_config(cfg)
    shared = {"dim": config["dim"], "signal": SignalSpec(**config["signal"])}
    with torch.device("meta"):
        encoder = registry.build("encoder", config["encoder"], **shared)
    quantizer = registry.build("quantizer", config["quantizer"], **shared)
    assert encoder.dim == quantizer.dim
    if name != "var":  # whose positions have different numbers of scales
        assert quantizer.bits_per_position == pytest.approx(PUBLISHED[name])
