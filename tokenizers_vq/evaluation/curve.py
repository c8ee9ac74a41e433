"""Quality over rate of a tokenizer that can spend fewer tokens: one evaluation per number."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tokenizers_vq.backbones.base import TokenEncoder
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.progress import clear, place
from tokenizers_vq.evaluation.protocol import Protocol
from tokenizers_vq.evaluation.run import DataLike
from tokenizers_vq.files import write_atomically
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Codes
from tokenizers_vq.viz import Series, chart_file

COLUMNS = ("n_bytes", "bpp", "psnr", "ssim", "ms_ssim", "lpips-alex", "rFD-EffLite0")
SHARED = ("schema", "protocol", "data", "seed", "environment")  # by all points of a curve


class Shortened:
    """A tokenizer that spends a given number of tokens, for ``evaluate``.

    Args:
        tokenizer: with an encoder to a sequence.
        num_tokens: how many.
    """

    def __init__(self, tokenizer: Tokenizer, num_tokens: int) -> None:
        self.tokenizer, self.num_tokens = tokenizer, num_tokens
        self.name = f"{tokenizer.name}[:{num_tokens}]"
        self.prior, self.quantizer = tokenizer.prior, tokenizer.quantizer
        self.parameters = tokenizer.parameters

    @property
    def sha256(self) -> str:
        """Hex digest of the weights."""
        return self.tokenizer.sha256

    def encode(self, x: Tensor) -> Codes:
        """Turn pictures ``(B, 3, H, W)`` into that many tokens."""
        return self.tokenizer.encode(x, num_tokens=self.num_tokens)

    def decode(self, codes: Codes) -> Tensor:
        """Turn tokens into pictures."""
        return self.tokenizer.decode(codes)


def measure_curve(
    tokenizer: Tokenizer,
    dataset: DataLike,
    counts: Sequence[int],
    protocol: Protocol,
    out: Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate a tokenizer at several numbers of tokens.

    Args:
        tokenizer: with an encoder to a sequence, and a decoder of its first tokens.
        dataset: the pictures.
        counts: numbers of tokens.
        protocol: how.
        out: folder of ``curve.json``, ``curve.md``, ``curve.svg`` and one folder per number, as
            ``evaluate`` writes it; nothing is written without it.
        **options: as for ``evaluate``.

    Returns:
        The curve as plain data: what all evaluations share (``protocol``, ``data``, ``seed``,
        ``environment``), ``tokenizer``, and ``points``, the fewest tokens first, each with
        ``num_tokens``, ``metrics`` (values by name) and ``codecs`` (PSNR of each classic codec with
        as many bytes, None where its smallest file of some picture is larger).

    Raises:
        ConfigError: the encoder makes a grid.
        ShapeError: no such number of tokens.
    """
    encoder = tokenizer.encoder
    if not isinstance(encoder, TokenEncoder) or not counts:
        raise ConfigError(
            f"curve: expected numbers of tokens and a tokenizer with sequences; got "
            f"{list(counts)} and {tokenizer.name}. Evaluate it without numbers of tokens."
        )
    chosen = sorted({encoder.check_count(count) for count in counts})
    found: dict[str, Any] = {}
    points = []
    state = None if out is None else out / "state"  # of all points, until the curve is complete
    for count in chosen:
        folder = None if out is None else out / f"tokens_{count:04}"
        result = evaluate(
            Shortened(tokenizer, count), dataset, protocol, folder, state=state, **options
        )
        found = {key: result[key] for key in SHARED}
        found["tokenizer"] = {**result["tokenizer"], "name": tokenizer.name}
        points.append(_point(count, result))
    curve = {**found, "points": points}
    if out is not None and place()[0] == 0:
        write_atomically(out / "curve.md", curve_table(curve))
        write_atomically(out / "curve.svg", curve_picture(curve))
        results.write_json(out / "curve.json", curve)  # last: it says the rest is complete
        clear(out / "state")
    return curve


def curve_and_report(
    tokenizer: Tokenizer,
    dataset: DataLike,
    counts: Sequence[int],
    protocol: Protocol,
    out: Path,
    **options: Any,
) -> None:
    """Measure a curve, write it, and print its table to standard output."""
    tokenizer.to(options.get("device", "cpu"))
    curve = measure_curve(tokenizer, dataset, counts, protocol, out, **options)
    if place()[0] == 0:
        sys.stdout.write(f"{curve_table(curve)}\n{out / 'curve.svg'}\n")


def curve_table(curve: dict[str, Any]) -> str:
    """Return the points of a curve as a Markdown table; what no point has is left out."""
    points = curve["points"]
    names = [name for name in COLUMNS if any(p["metrics"].get(name) is not None for p in points)]
    codecs = list(points[0]["codecs"])
    labels = [results.label(name) for name in names]
    labels += [f"PSNR of {results.codec_label(codec)} with as many bytes" for codec in codecs]
    lines = [f"| tokens | {' | '.join(labels)} |", "|---:|" + "---:|" * len(labels)]
    for point in points:
        values = [point["metrics"].get(name) for name in names]
        values += [point["codecs"][codec] for codec in codecs]
        lines.append(f"| {point['num_tokens']} | {' | '.join(map(results.number, values))} |")
    return "\n".join([*lines, "", f"{curve['tokenizer']['name']}. {results.footnote(curve)}", ""])


def curve_picture(curve: dict[str, Any]) -> str:
    """Return PSNR over bytes as an SVG file: the tokenizer, and the codecs with as many bytes."""
    points = curve["points"]
    own = [(point["metrics"]["n_bytes"], point["metrics"]["psnr"]) for point in points]
    series = [Series(curve["tokenizer"]["name"], own)]
    for codec in points[0]["codecs"]:
        values = [
            (point["metrics"]["n_bytes"], point["codecs"][codec])
            for point in points
            if point["codecs"][codec] is not None
        ]
        if not values:
            continue
        series.append(Series(results.codec_label(codec), values, dashed=True))
    title = f"PSNR over bytes of {curve['tokenizer']['name']}"
    return chart_file(series, "bytes per picture, real files", "PSNR dB", title)


def _point(count: int, result: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: score["value"] for name, score in result["metrics"].items()}
    codecs = {}
    for codec, rules in result["baselines"].items():
        equal = next(point for point in rules["best_scale"] if point["factor"] == 1)
        # a mean in which some files are larger is not one with as many bytes
        codecs[codec] = None if equal["over_budget"] else equal["metrics"].get("psnr")
    return {"num_tokens": count, "metrics": metrics, "codecs": codecs}
