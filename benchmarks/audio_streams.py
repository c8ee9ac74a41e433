"""Delay and speed of codecs that work in pieces of one position, on one core.

    OMP_NUM_THREADS=1 python benchmarks/audio_streams.py -o benchmarks/results/audio_streams

Weights are random where none ship: neither number depends on them. *Start* is how much must have
arrived before the first sample comes out, *delay* how long a sample stays inside afterwards at
most: samples that went in and did not come out, and the position that is being filled. A real-time
factor is CPU seconds per second of sound: below 1 keeps up, if nothing else runs on that core.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.configs import read_config
from tokenizers_vq.tokenizer import Tokenizer

# name: backbone and quantizer
CODECS: dict[str, tuple[str, dict[str, Any]]] = {
    "EnCodec 24 kHz, 6 kb/s": (
        "seanet_encodec_24k",
        {**read_config("quantizer", "rvq"), "code_dim": 128,
         "stages": {"repeat": 8, "of": {"name": "vq", "codebook_size": 1024}}},
    ),
    "Mimi 24 kHz, 1.1 kb/s": ("mimi_24k", read_config("quantizer", "split_residual")),
    "spectrum 16 kHz, 4 kb/s": (
        "spectrum_16k",
        {**read_config("quantizer", "rvq"),
         "stages": {"repeat": 8, "of": {"name": "vq", "codebook_size": 256}}},
    ),
}  # fmt: skip


def build(backbone: str, quantizer: dict[str, Any]) -> Tokenizer:
    """Return the codec with random weights."""
    torch.manual_seed(0)
    config = {**read_config("backbone", backbone), "quantizer": quantizer}
    return Tokenizer.from_config(config, name=backbone).eval()


def cpu_seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the CPU seconds of a call and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


@torch.no_grad()
def measure(name: str, seconds: float) -> dict[str, Any]:
    """Return one row: delays in milliseconds, and real-time factors in pieces and as a whole."""
    tok = build(*CODECS[name])
    rate, step = tok.signal.sample_rate or 1, tok.stride[0]
    count = round(seconds * rate / step)
    x = 0.1 * torch.randn(1, tok.signal.channels, count * step).clamp(-5, 5)
    stream = tok.stream()
    start = stream.latency
    encoding, decoding, given = [], [], []
    for k in range(count):
        piece = x[..., k * step : (k + 1) * step]
        spent, tokens = cpu_seconds(lambda piece=piece: stream.encode(piece))  # type: ignore[misc]
        encoding.append(spent)
        spent, sound = cpu_seconds(lambda tokens=tokens: stream.decode(tokens))  # type: ignore[misc]
        decoding.append(spent)
        given.append(sound.shape[-1])
    inside = count * step - sum(given)
    whole_in, codes = cpu_seconds(lambda: tok.encode(x).indices)
    whole_out, _ = cpu_seconds(lambda: tok.decode(codes))
    return {
        "codec": name,
        "parameters": sum(p.numel() for p in tok.parameters()),
        "position_ms": 1e3 * step / rate,
        "start_ms": 1e3 * start / rate,
        "delay_ms": 1e3 * (inside + step) / rate,
        "encode": statistics.median(encoding) * rate / step,
        "decode": statistics.median(decoding) * rate / step,
        "encode_whole": whole_in * rate / (count * step),
        "decode_whole": whole_out * rate / (count * step),
    }


def table(rows: list[dict[str, Any]], head: str) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| codec | parameters | position | start | delay | in pieces: encode | decode | as a whole:"
        " encode | decode |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        times = " | ".join(f"{row[key]:.0f} ms" for key in ("position_ms", "start_ms", "delay_ms"))
        keys = ("encode", "decode", "encode_whole", "decode_whole")
        factors = " | ".join(f"{row[key]:.3f}" for key in keys)
        size = f"{row['parameters'] / 1e6:.1f} M"
        lines.append(f"| {row['codec']} | {size} | {times} | {factors} |")
    return f"{head}\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of sound per codec")
    parser.add_argument("-o", type=Path, default=None, help="results without a suffix")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, given.seconds) for name in CODECS]
    head = (
        f"CPU seconds per second of sound, one thread, pieces of one position, batch 1, "
        f"{given.seconds:g} s per codec; torch {torch.__version__}, {platform.machine()}."
    )
    text = table(rows, head)
    print(text)
    if given.o is not None:
        given.o.with_suffix(".md").write_text(text)
        given.o.with_suffix(".json").write_text(
            json.dumps({"torch": torch.__version__, "threads": 1, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
