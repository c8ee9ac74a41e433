"""Run a protocol for sound: a tokenizer at several depths and classic codecs, on the same clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation.progress import carry_out
from tokenizers_vq.evaluation.sound_protocol import SoundProtocol
from tokenizers_vq.evaluation.sound_run import KEPT, SoundRun


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
    keep: int = KEPT,
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
    run = SoundRun(tokenizer, dataset, protocol, device, weights, 0 if out is None else keep)
    return carry_out(run, out, data_name, strict=strict)


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
