"""Run a protocol for sound: a tokenizer at several depths and classic codecs, on the same clips."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol
from tokenizers_vq.evaluation.sound_run import SoundRun
from tokenizers_vq.files import write_atomically


def evaluate_sound(
    tokenizer: Any,
    dataset: Any,
    protocol: SoundProtocol,
    out: str | Path | None = None,
    *,
    data_name: str = "",
    device: str = "cpu",
    weights: Mapping[str, str] | None = None,
    strict: bool = False,
    keep: int = 3,
) -> dict[str, Any]:
    """Measure a tokenizer, or classic codecs alone, on clips.

    Args:
        tokenizer: as ``tokenizers_vq.load`` returns it; None for the codecs alone.
        dataset: as ``sound_dataset`` returns it.
        protocol: how.
        out: folder for ``result.json``, ``samples.jsonl``, ``table.md`` and the sounds of the
            report; nothing is written without it.
        data_name: printed with the numbers; default: the class of the data set.
        device: where the tokenizer runs.
        weights: local weights files by key, for the metrics that need them.
        strict: raise when a metric or codec is skipped.
        keep: how many clips are kept in ``out`` to be listened to.

    Returns:
        The result as plain data, as of ``evaluate``; ``depths`` holds the metrics by number of
        codebooks, ``baselines`` those of the codecs by setting, ``data.skipped`` the files that
        could not be used.

    Raises:
        ConfigError: the tokenizer is not one of sound.
        DataError: there is no clip.
        BitstreamError: a ``.tok`` file did not give back the indices it was made from.
        MissingExtraError: ``strict`` and something was skipped.
    """
    from tqdm import tqdm

    run = SoundRun(tokenizer, dataset, protocol, device, dict(weights or {}))
    start = time.perf_counter()
    for k, (index, name, clip) in enumerate(
        tqdm(run.clips(), total=len(run.chosen), unit="clip", leave=False, disable=None)
    ):
        run.measure(index, name, clip, keep=out is not None and k < keep)
    result = run.result(data_name or type(dataset).__name__)
    result["seconds"] = round(time.perf_counter() - start, 3)
    if out is not None:
        _write(Path(out), run, result)
    missing = _missing(result)
    if strict and missing:
        raise MissingExtraError(
            f"evaluate: expected every metric with strict; got {len(missing)} skipped "
            f"({'; '.join(missing)}). Give the weights, or leave strict out."
        )
    return result


def sound_dataset(name: str, protocol: SoundProtocol) -> tuple[Any, str]:
    """Return the sounds of a folder, or the held-out part of a data set in ``conf/data``.

    Raises:
        ConfigError: there is neither such a folder nor such a data set, or it has another rate.
    """
    from tokenizers_vq.data.audio import AudioFolder
    from tokenizers_vq.evaluation.entry import dataset_from

    if Path(name).is_dir():
        dataset: Any = AudioFolder(name, sample_rate=protocol.sample_rate)
        return dataset, Path(name).resolve().name
    dataset, name = dataset_from(name)
    rate = getattr(getattr(dataset, "signal", None), "sample_rate", None)
    if rate != protocol.sample_rate:
        raise ConfigError(
            f"data '{name}': expected sound at {protocol.sample_rate} Hz, as protocol "
            f"'{protocol.name}' says; got {rate}. Give a folder of sounds instead."
        )
    return dataset, name


def _write(folder: Path, run: SoundRun, result: Mapping[str, Any]) -> None:
    results.write_rows(folder / "samples.jsonl", run.rows)
    last = results.metric_table(result) if result["metrics"] else results.footnote(result)
    tables = (results.sound_table(result), last)
    write_atomically(folder / "table.md", "\n\n".join(filter(None, tables)) + "\n")
    for number, (name, sounds) in enumerate(run.sounds.items()):
        place = folder / "sounds" / f"{number:02d}"
        place.mkdir(parents=True, exist_ok=True)
        for k, sound in enumerate(sounds.values()):
            _write_flac(place / f"{k:02d}.flac", sound, run.protocol.sample_rate)
        write_atomically(place / "names.json", json.dumps({"id": name, "sounds": list(sounds)}))
    results.write_json(folder / "result.json", result)  # last: it says the rest is complete


def _write_flac(path: Path, sound: Tensor, rate: int) -> None:
    import soundfile

    soundfile.write(path, sound[0].numpy(), rate, subtype="PCM_16")


def _missing(result: Mapping[str, Any]) -> list[str]:
    reasons = [f"{k}: {v['reason']}" for k, v in result["metrics"].items() if v["reason"]]
    return reasons + [
        f"{codec}: {point['reason']}"
        for codec, points in result["baselines"].items()
        for point in points
        if "reason" in point
    ]
