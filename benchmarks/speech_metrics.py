"""Time each metric of speech against the package it wraps, called directly, on the same clip.

python benchmarks/speech_metrics.py --seconds 5 --rounds 3

CPU seconds of all threads per second of sound, the median of rounds in which both sides take
turns; every round has another reconstruction, and the original's part is computed once on our side
where it can be. Packages that are missing are left out by name.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq import registry
from tokenizers_vq.data.synthetic_audio import SyntheticAudio


def pesq(real: Tensor, fake: Tensor) -> None:
    """Call ``pesq`` for both bands."""
    from pesq import pesq as package

    for band in ("wb", "nb"):
        package(16000, real.numpy(), fake.numpy(), band)


def stoi(real: Tensor, fake: Tensor) -> None:
    """Call ``pystoi`` for both forms."""
    from pystoi import stoi as package

    for extended in (False, True):
        package(real.numpy(), fake.numpy(), 16000, extended=extended)


def visqol(real: Tensor, fake: Tensor) -> None:
    """Call ``visqol-python``, made once."""
    from tokenizers_vq.metrics.visqol import _api

    _api().measure_from_arrays(real.double().numpy(), fake.double().numpy(), 16000)


def distillmos(real: Tensor, fake: Tensor) -> None:
    """Call ``distillmos``, loaded once."""
    from tokenizers_vq.metrics.distillmos import _model

    with torch.no_grad():
        _model()(fake[None])


def dnsmos(real: Tensor, fake: Tensor) -> None:
    """Call ``speechmos.dnsmos``."""
    from speechmos import dnsmos as package

    package.run(fake.numpy(), 16000)


def plcmos(real: Tensor, fake: Tensor) -> None:
    """Call ``speechmos.plcmos``."""
    from speechmos import plcmos as package

    package.run(fake.numpy(), 16000)


def speaker_similarity(real: Tensor, fake: Tensor) -> None:
    """Call ``resemblyzer`` on both clips."""
    from tokenizers_vq.metrics.speaker_similarity import _encoder

    package, encoder = _encoder()
    for one in (real, fake):
        encoder.embed_utterance(package.preprocess_wav(one.numpy(), 16000))


def wer(real: Tensor, fake: Tensor) -> None:
    """Call ``faster-whisper`` on both clips."""
    from tokenizers_vq.metrics.wer import _recogniser

    for one in (real, fake):
        options = {"beam_size": 5, "temperature": 0.0, "condition_on_previous_text": False}
        list(_recogniser().transcribe(one.numpy(), language="en", **options)[0])


PACKAGES: dict[str, Callable[[Tensor, Tensor], None]] = {
    one.__name__: one
    for one in (pesq, stoi, visqol, distillmos, dnsmos, plcmos, speaker_similarity, wer)
}


def spent(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def compare(name: str, real: Tensor, rounds: int) -> tuple[float, float] | str:
    """Return the median of ours and of theirs in CPU seconds, or why there is none."""
    metric = registry.build("metric", {"name": name}, sample_rate=16000, resamples=0)
    if metric.reason:
        return str(metric.reason)
    ours, theirs = [], []
    for k in range(rounds + 1):
        fake = (real + 0.01 * torch.randn(len(real))).clamp(-1, 1)
        mine = spent(metric.update, real[None, None], fake[None, None])
        other = spent(PACKAGES[name], real, fake)
        if k:  # the first round imports
            ours.append(mine)
            theirs.append(other)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    """Print a row per metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default=None, help="folder of sounds; default: a synthetic voice")
    parser.add_argument("--only", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.data is None:
        real = SyntheticAudio(1, options.seconds)[0][0]
    else:
        from tokenizers_vq.data.audio import AudioFolder

        real = AudioFolder(options.data, 16000)[0][0, : round(16000 * options.seconds)]
    print("| metric | ours | the package | package / ours |\n|---|---:|---:|---:|")
    for name in options.only:
        with contextlib.suppress(ImportError):
            found = compare(name, real, options.rounds)
            if isinstance(found, str):
                print(f"| {name} | {found} | | |")
                continue
            mine, other = (one / options.seconds for one in found)
            print(f"| {name} | {mine:.4f} | {other:.4f} | {other / mine:.2f} |", flush=True)


if __name__ == "__main__":
    main()
