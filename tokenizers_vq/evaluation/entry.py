"""Run a protocol over a data set with a tokenizer: one result, samples, pictures or clips."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.image_run import ImageRun, TokenizerLike
from tokenizers_vq.evaluation.progress import carry_out, place, processes
from tokenizers_vq.evaluation.protocol import Protocol, load_protocol
from tokenizers_vq.evaluation.run import DataLike, Run
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol
from tokenizers_vq.evaluation.video_protocol import VideoProtocol
from tokenizers_vq.evaluation.video_run import VideoRun, video_dataset
from tokenizers_vq.files import write_atomically


def evaluate(
    tokenizer: TokenizerLike,
    dataset: DataLike,
    protocol: str | Mapping[str, Any] | Protocol | SoundProtocol = "image_fast",
    out: str | Path | None = None,
    *,
    data_name: str = "",
    device: str = "cpu",
    weights: Mapping[str, str] | None = None,
    strict: bool = False,
    pictures: int = 24,
    state: Path | None = None,
) -> dict[str, Any]:
    """Measure a tokenizer on a data set.

    Args:
        tokenizer: as ``tokenizers_vq.load`` returns it.
        dataset: with ``ids`` and ``sha256()``; items ``(3, H, W)`` float32 in [-1, 1], videos
            ``(3, T, H, W)``, or clips ``(C, T)`` at the rate of a protocol for sound.
        protocol: name in ``conf/protocol``, plain data, a ``Protocol`` or a ``SoundProtocol``.
        out: folder for ``result.json``, ``samples.jsonl``, ``table.md`` and the pictures; nothing
            is written without it.
        data_name: printed with the numbers; default: the class of the data set.
        device: where the tokenizer runs.
        weights: local weights files by key, for the metrics that need them.
        strict: raise when a metric is skipped.
        pictures: how many pictures are kept in ``out`` for the report.
        state: folder of what a killed evaluation had measured, see ``progress``; default: one in
            ``out``, which is there as long as the result is not complete.

    Returns:
        The result as plain data: ``schema``, ``protocol``, ``tokenizer``, ``data``, ``seed``,
        ``environment``, ``metrics`` (scores by name), ``throughput``, ``anchors``, ``baselines``.

    Raises:
        ConfigError: an unknown protocol, metric or option.
        DataError: the data set is empty.
        BitstreamError: a ``.tok`` file did not give back the indices it was made from.
        MissingExtraError: ``strict`` and a metric could not be computed.
    """
    chosen = load_protocol(protocol)
    if isinstance(chosen, SoundProtocol):
        from tokenizers_vq.evaluation.sound_run import KEPT, SoundRun

        run: Run = SoundRun(tokenizer, dataset, chosen, device, weights, 0 if out is None else KEPT)
    else:
        made = VideoRun if isinstance(chosen, VideoProtocol) else ImageRun
        run = made(tokenizer, dataset, chosen, device, weights, 0 if out is None else pictures)
    return carry_out(run, out, data_name, strict=strict, state=state)


def dataset_from(name: str) -> tuple[DataLike, str]:
    """Return the pictures of a folder, or the held-out part of a data set in ``conf/data``.

    Raises:
        ConfigError: there is neither such a folder nor such a data set.
    """
    from tokenizers_vq.configs import read_config
    from tokenizers_vq.data.images import ImageFolder

    if Path(name).is_dir():
        return ImageFolder(name), Path(name).resolve().name
    config = read_config("data", name)
    built: DataLike = _instantiate(config["val"], name)
    return built, name


def _instantiate(config: Any, name: str) -> Any:
    """Build a data set from ``_target_`` data; only classes of ``tokenizers_vq.data``."""
    if isinstance(config, str) and config.startswith("${"):
        raise ConfigError(
            f"data '{name}': expected a data set without open values; got {config}. "
            "Give the folder of pictures instead."
        )
    if isinstance(config, list):
        return [_instantiate(one, name) for one in config]
    if not isinstance(config, dict):
        return config
    options = {k: _instantiate(v, name) for k, v in config.items() if k != "_target_"}
    if "_target_" not in config:
        return options
    module, _, attribute = str(config["_target_"]).rpartition(".")
    if not module.startswith("tokenizers_vq.data."):
        raise ConfigError(f"data '{name}': expected a class of tokenizers_vq.data; got {module}.")
    return getattr(import_module(module), attribute)(**options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``tvq eval``."""
    parser.add_argument("tokenizer", help="name, folder or hf:org/repo")
    parser.add_argument(
        "--data",
        default=None,
        help="folder of pictures, sounds or videos, or a name in conf/data (default: wheels, "
        "synthetic_audio, synthetic_video)",
    )
    parser.add_argument("--protocol", default="image_fast", help="name in conf/protocol")
    parser.add_argument("-o", "--out", type=Path, default=None, help="folder of the results")
    parser.add_argument("--limit", type=int, default=None, help="measure that many items")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=None, metavar="N",
        help="a curve: measure with the first N tokens, for each N",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="KEY=FILE",
        help="local weights of a metric",
    )
    parser.add_argument("--strict", action="store_true", help="fail when a metric is skipped")


@processes()
def main_from_args(arguments: argparse.Namespace) -> int:
    """Evaluate as the command line says, write the report, print the tables; return 0.

    Raises:
        ConfigError: an unknown protocol, data set, option or weights key.
        CheckpointError: the tokenizer or a weights file is missing or not what it says.
        MissingExtraError: ``--strict`` and a metric was skipped.
    """
    from tokenizers_vq.hub import load
    from tokenizers_vq.metrics.weights import parse_weights

    weights = parse_weights(arguments.weights)
    protocol = load_protocol(arguments.protocol)
    if arguments.limit is not None:
        protocol = dataclasses.replace(protocol, limit=arguments.limit)
    if isinstance(protocol, SoundProtocol):
        from tokenizers_vq.evaluation.sound_evaluation import sound_dataset

        _refuse_tokens(arguments, protocol, "sounds")
        dataset, name = sound_dataset(arguments.data or "synthetic_audio", protocol)
    elif isinstance(protocol, VideoProtocol):
        _refuse_tokens(arguments, protocol, "videos")
        dataset, name = video_dataset(arguments.data or "synthetic_video", protocol)
    else:
        dataset, name = dataset_from(arguments.data or "wheels")
    tokenizer = load(arguments.tokenizer)
    out = arguments.out or Path("outputs/eval") / tokenizer.name / protocol.name
    options: dict[str, Any] = {"data_name": name, "device": arguments.device}
    options |= {"weights": weights, "strict": arguments.strict}
    if arguments.tokens is not None and not isinstance(protocol, SoundProtocol):
        from tokenizers_vq.evaluation.curve import curve_and_report

        curve_and_report(tokenizer, dataset, arguments.tokens, protocol, out, **options)
        return 0
    evaluate_and_report(tokenizer, dataset, protocol, out, **options)
    return 0


def _refuse_tokens(
    arguments: argparse.Namespace, protocol: Protocol | SoundProtocol, of: str
) -> None:
    if arguments.tokens is not None:
        raise ConfigError(
            f"eval: expected --tokens with a protocol of pictures; got {protocol.name}, of "
            f"{of}. Leave --tokens out."
        )


def evaluate_and_report(
    tokenizer: Any,
    dataset: DataLike,
    protocol: Protocol | SoundProtocol,
    out: Path,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate, write ``report.html`` and the curves as SVG, print the tables to standard output.

    Args:
        tokenizer: moved to ``options["device"]`` if it is a module.
        dataset: the pictures or sounds.
        protocol: how.
        out: folder of everything that is written.
        **options: as for ``evaluate``.
    """
    from tokenizers_vq.evaluation.report import rate_picture, write_report
    from tokenizers_vq.evaluation.sound_report import write_sound_report

    sound = isinstance(protocol, SoundProtocol)
    if hasattr(tokenizer, "to"):
        tokenizer.to(options.get("device", "cpu"))
    result = evaluate(tokenizer, dataset, protocol, out, **options)
    if place()[0]:
        return result  # the first process writes
    page = write_sound_report(out, result) if sound else write_report(out, result)
    picture = "" if sound else rate_picture(result)
    if picture:
        write_atomically(out / "rate_distortion.svg", picture)
    summary = results.sound_table(result) if sound else results.codec_table(result)
    last = results.metric_table(result) if result["metrics"] else results.footnote(result)
    tables = filter(None, (summary, last))
    sys.stdout.write("\n\n".join(tables) + f"\n\n{page}\n")
    return result
