"""From a configuration to a trained tokenizer: the only place that makes objects of ``conf/``."""

import inspect
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import hydra
import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from tokenizers_vq import registry
from tokenizers_vq.errors import ConfigError, unknown_option
from tokenizers_vq.hub import load
from tokenizers_vq.losses.objective import Objective
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.callbacks import Publish, find_ema
from tokenizers_vq.training.checkpoint import LAST, LastCheckpoint, Stopped
from tokenizers_vq.training.datamodule import SignalData
from tokenizers_vq.training.explain import USER_ERRORS, building, check_types, explain, freed
from tokenizers_vq.training.folder import RunFolder, is_first_process, open_folder
from tokenizers_vq.training.module import TokenizerModule
from tokenizers_vq.training.passes import TrainingPass
from tokenizers_vq.training.start import begin_with

# What Lightning says about loaders and loggers that are as we want them.
HARMLESS = (
    ".*does not have many workers.*",
    ".*log_every_n_steps.*",
    ".*LeafSpec.*",
    ".*no `val_dataloader`.*",
)
GROUPS = ("backbone", "quantizer", "data", "objective", "optim", "trainer")
# Lightning refuses these under manual optimization; the recipe does their work.
ELSEWHERE = {"gradient_clip_val": "optim.clip", "accumulate_grad_batches": "optim.accumulate"}


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        folder: of the run; ``tokenizer/`` in it can be loaded and pushed.
        tokenizer: the trained tokenizer in eval mode, with averaged weights where there is an EMA.
        step: optimizer steps taken in all.
        metrics: the last value of everything that was logged, e.g. ``val/psnr``.
        finished: False after Ctrl-C.
    """

    folder: Path
    tokenizer: Tokenizer
    step: int
    metrics: dict[str, float]
    finished: bool


def run(cfg: DictConfig) -> RunResult:
    """Train what ``cfg`` describes.

    Args:
        cfg: what ``conf/train.yaml`` composes to.

    Raises:
        ConfigError: a name, option or value does not exist, or does not go with another.
        CheckpointError: there is nothing where ``resume`` points.
    """
    cfg = cfg.copy()
    check(cfg)
    with open_dict(cfg):
        cfg.name = cfg.name or f"{cfg.backbone.encoder.name}_{cfg.quantizer.name}"
    where = open_folder(_plain(cfg))
    with open_dict(cfg):
        cfg.folder = str(where.path)
    lightning.seed_everything(cfg.seed, workers=False, verbose=False)
    with _quiet():
        module, trainer = build(cfg)
        data = build_data(cfg)
        data.check(module.tokenizer.signal)
        finished = _fit(trainer, module, data, where)
    ema = find_ema(trainer)
    if ema is not None:
        ema.put(module)
    return RunResult(
        where.path, module.tokenizer.eval(), module.global_step, dict(module.latest), finished
    )


def tokenizer_config(cfg: DictConfig) -> dict[str, Any]:
    """Merge ``cfg.backbone`` and ``cfg.quantizer`` to the plain config of a tokenizer."""
    return {**_plain(cfg.backbone), "quantizer": _plain(cfg.quantizer)}


def build(cfg: DictConfig) -> tuple[TokenizerModule, lightning.Trainer]:
    """Return the module to train and the trainer, with callbacks and loggers.

    Args:
        cfg: as for ``run``, with the folder filled in.
    """
    with building("backbone"):
        tokenizer = Tokenizer.from_config(tokenizer_config(cfg), name=cfg.name)
        if cfg.start:
            begin_with(tokenizer, load(cfg.start))
    with building("objective"):
        objective, critic = _build_objective(cfg, tokenizer.signal.channels)
    if cfg.compile:
        # in place, so that the names in checkpoints stay
        tokenizer.encoder.compile()
        tokenizer.decoder.compile()
    recipe = instantiate(cfg.optim, _convert_="all")
    callbacks = [instantiate(one, _convert_="all") for one in cfg.callbacks.values() if one]
    for callback in callbacks:
        if isinstance(callback, Publish):
            callback.discriminator = critic
    trainer = instantiate(
        cfg.trainer,
        _convert_="all",
        logger=[instantiate(one, _convert_="all") for one in cfg.logger.values() if one],
        callbacks=callbacks,
        default_root_dir=cfg.folder,
        enable_checkpointing=any(isinstance(one, LastCheckpoint) for one in callbacks),
    )
    module = TokenizerModule(
        tokenizer,
        objective,
        recipe,
        cfg.trainer.log_every_n_steps,
        training_pass=_build_pass(cfg),
        trainable=cfg.trainable or (),
    )
    return module, trainer


def build_data(cfg: DictConfig) -> SignalData:
    """Return the loaders of ``cfg.data``; the order of training items follows ``cfg.seed``."""
    data = cfg.data
    return SignalData(
        instantiate(data.train, _convert_="all"),
        instantiate(data.val, _convert_="all") if data.get("val") else None,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        repeat=data.get("repeat"),
        seed=cfg.seed,
        prior=instantiate(data.prior, _convert_="all") if data.get("prior") else None,
    )


def check(cfg: DictConfig) -> None:
    """Raise ``ConfigError`` for options that do not exist, before anything is built or written."""
    precision = str(cfg.trainer.get("precision", "32-true"))
    if precision.startswith("16"):
        if cfg.objective.get("discriminator"):
            raise ConfigError(
                "training: fp16 with a discriminator needs a gradient scaler we do not drive; "
                "use precision=bf16-mixed."
            )
        raise ConfigError(
            f"training: expected trainer.precision of 32-true or bf16-mixed; got {precision}. "
            "Gradients are clipped and accumulated without a gradient scaler."
        )
    for option, ours in ELSEWHERE.items():
        if cfg.trainer.get(option) is not None:
            raise ConfigError(f"training: expected {ours}; got trainer.{option}. Use {ours}.")
    for group in ("data", "objective", "optim", "trainer", "logger", "callbacks"):
        _check_options(cfg[group], group)
    check_types(SignalData, _values(cfg.data), "data")
    if not isinstance(cfg.seed, int):
        raise ConfigError(f"train: expected a whole number as seed; got {cfg.seed!r}. Set seed=0.")


def main(arguments: list[str] | None = None) -> int:
    """Compose ``conf/train.yaml`` with the command line and train; the program ``train.py``.

    Args:
        arguments: Hydra overrides and flags; default those of the process. ``--debug`` shows the
            whole traceback of a wrong configuration.

    Returns:
        Exit code: 0, 2 for a configuration that cannot be run, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words or bool(os.environ.get("HYDRA_FULL_ERROR"))
    codes = [0]

    def task(cfg: DictConfig) -> None:
        with _explained(codes, debug):
            _name(cfg, HydraConfig.get().runtime.choices)
            codes.append(0 if run(cfg).finished else 130)

    arguments_before, sys.argv[1:] = (
        sys.argv[1:],
        [freed(word) for word in words if word != "--debug"],
    )
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through, to be explained
    try:
        with _explained(codes, debug):
            hydra.main(version_base="1.3", config_path=str(conf()), config_name="train")(task)()
    finally:
        sys.argv[1:] = arguments_before
        if not debug:
            os.environ.pop("HYDRA_FULL_ERROR")
    return max(codes)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Return the configuration of a run, as the command line ``train.py <overrides>`` has it.

    Args:
        overrides: words like ``quantizer=vq`` and ``optim.lr=1e-3``.

    Raises:
        HydraException: a group, option or key does not exist.
    """
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf())):
        words = [freed(word) for word in overrides]
        cfg: DictConfig = hydra.compose("train", words, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg.hydra
    _name(cfg, choices)
    return cfg


def conf() -> Path:
    """Return the folder of configurations that belongs to this package."""
    return Path(str(files("tokenizers_vq.conf")))


def _fit(
    trainer: lightning.Trainer, module: TokenizerModule, data: SignalData, where: RunFolder
) -> bool:
    """Train and validate at the end; return False after Ctrl-C."""
    ctrl_c = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, data, ckpt_path=where.checkpoint, weights_only=True)
    except Stopped:
        _say(
            f"Stopped at step {trainer.global_step}; saved {where.path / LAST}. "
            f"To go on, give the same command with resume={where.path}"
        )
        return False
    finally:
        if threading.current_thread() is threading.main_thread():
            # Lightning gives signals back in the middle of its own teardown
            signal.signal(signal.SIGINT, ctrl_c)
    if data.val is not None and module.validated_at != module.global_step:
        trainer.validate(module, data, verbose=False)
    _say(f"Trained {trainer.global_step} steps; results are in {where.path}")
    return True


def _build_objective(cfg: DictConfig, channels: int) -> tuple[Objective, dict[str, Any] | None]:
    """Return the objective, and the plain config of its discriminator if it has one."""
    options, config, critic = _plain(cfg.objective), None, None
    plain = options.pop("discriminator", None)
    if plain:
        config = dict(plain)
        takes = inspect.signature(registry.resolve("discriminator", config["name"])).parameters
        if "channels" in takes:
            config = {"channels": channels, **config}
        critic = registry.build("discriminator", config)
    objective = instantiate(options, discriminator=critic, _convert_="all")
    return objective, config


def _build_pass(cfg: DictConfig) -> TrainingPass | None:
    """Return the training pass that ``cfg`` names, or None to let the tokenizer choose."""
    if not cfg.training_pass:
        return None
    with building("training_pass"):
        made: TrainingPass = registry.build("training_pass", _plain(cfg.training_pass))
    return made


def _check_options(node: Any, path: str) -> None:
    """Raise ``ConfigError`` if a ``_target_`` below ``node`` does not take one of its options."""
    if isinstance(node, ListConfig):
        for one in node:
            _check_options(one, path)
    if not isinstance(node, DictConfig):
        return
    target = node.get("_target_")
    if target is not None:
        takes = list(inspect.signature(get_object(target)).parameters)
        for option in map(str, node):
            if option not in takes and not option.startswith("_"):
                raise unknown_option(path, target.rpartition(".")[2], option, takes)
        check_types(get_object(target), _values(node), path)
    for name in node:  # numbers too: the steps of optim.drops
        if not OmegaConf.is_missing(node, name):
            _check_options(node[name], f"{path}.{name!s}")


def _values(node: DictConfig) -> dict[str, Any]:
    """Return the numbers, texts and lists of ``node`` that are set."""
    names = [name for name in node if not OmegaConf.is_missing(node, name)]
    found = {str(name): node[name] for name in names if not isinstance(node[name], DictConfig)}
    return {
        name: OmegaConf.to_container(value) if isinstance(value, ListConfig) else value
        for name, value in found.items()
    }


@contextmanager
def _explained(codes: list[int], debug: bool) -> Iterator[None]:
    """Write what is wrong with a configuration in a sentence and note exit code 2.

    A sweep goes on with its next run.
    """
    try:
        yield
    except (*USER_ERRORS, HydraException) as error:
        if debug:
            raise
        sys.stderr.write(f"{explain(error, conf())}\n")
        codes.append(2)


def _name(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Name a run after what it is made of, unless it has a name.

    Raises:
        ConfigError: a group got a list of names; Hydra would mix their options.
    """
    for group in GROUPS:
        if group not in choices:
            raise ConfigError(
                f"train: expected one name for {group}; got a list. "
                f"To run one after the other, use -m {group}=first,second."
            )
    if cfg.name is None:
        cfg.name = f"{choices['backbone']}_{choices['quantizer']}.{choices['data']}"


def _plain(cfg: Any) -> dict[str, Any]:
    """Return a config as plain data, with interpolations resolved."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, Mapping) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about settings that are as they should be."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message)
        yield
    log.setLevel(level)


def _say(message: str) -> None:
    if is_first_process():
        sys.stderr.write(message + "\n")
