"""Evaluate one tokenizer under one protocol.

python eval/run.py tokenizer=NAME_OR_FOLDER data=wheels protocol=image_fast
"""

import sys
from importlib.resources import files
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tokenizers_vq.errors import (
    BitstreamError,
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
)
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import evaluate_and_report
from tokenizers_vq.evaluation.protocol import load_protocol
from tokenizers_vq.hub import load

EXPECTED = (BitstreamError, CheckpointError, ConfigError, DataError, MissingExtraError)


def run(cfg: DictConfig) -> None:
    """Load, evaluate, write the report, print the tables."""
    plain = OmegaConf.to_container(cfg.protocol, resolve=True)
    protocol = load_protocol(plain)
    if cfg.split not in cfg.data:
        raise ConfigError(
            f"eval: expected split train or val; got '{cfg.split}'. The data has no such part."
        )
    tokenizer = load(cfg.tokenizer)
    out = Path(cfg.out or f"outputs/eval/{tokenizer.name}/{protocol.name}")
    result = evaluate_and_report(
        tokenizer,
        instantiate(cfg.data[cfg.split], _convert_="all"),
        protocol,
        out,
        data_name=f"{HydraConfig.get().runtime.choices['data']}.{cfg.split}",
        device=cfg.device,
        weights=dict(cfg.weights),
        strict=cfg.strict,
        pictures=cfg.pictures,
    )
    if cfg.keep:
        results.write_json(Path(cfg.keep), result)


def main() -> int:
    """Run, and turn what a user can mend into one sentence and exit code 2."""
    conf = str(files("tokenizers_vq.conf"))
    codes = [0]

    def task(cfg: DictConfig) -> None:
        try:
            run(cfg)
        except EXPECTED as error:
            print(error, file=sys.stderr)
            codes.append(2)

    hydra.main(version_base="1.3", config_path=conf, config_name="evaluate")(task)()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
