"""One self-contained HTML page about one evaluation: pictures or clips, curves, tables."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tokenizers_vq import viz
from tokenizers_vq.errors import DataError
from tokenizers_vq.evaluation import image_codecs, results, video_codecs
from tokenizers_vq.files import write_atomically
from tokenizers_vq.page import html_table, standalone
from tokenizers_vq.viz import Series

CODECS = (*image_codecs.CODECS, *video_codecs.CODECS)
FRAME = 120  # milliseconds that a frame of a clip is shown for
LIMIT = 5_000_000  # bytes of the page
QUALITIES = (94, 85, 70)  # of the thumbnails, tried in turn until the page is small enough
CHARTS = 3  # codebooks that get a chart of their own
TILES = ("psnr", "ssim", "bpp", "n_bytes", "usage", "cos-EffLite0")
CURVES = (
    ("Loss", ("train/loss", "val/loss"), True),
    ("PSNR on held-out pictures, dB", ("val/psnr",), False),
    ("Codebook usage", ("codebook/usage", "val/usage", "val/codebook/usage"), False),
)


@dataclass(frozen=True)
class Sample:
    """One held-out picture, or clip, in the report.

    Attributes:
        id: its name.
        original: ``(H, W, 3)`` uint8, of a clip ``(T, H, W, 3)``.
        reconstruction: of the same shape.
        tokens: ``(h, w, K)`` or ``(t, h, w, K)`` int64, None when the codes are no grid.
        codecs: what classic codecs make of the same bytes, by name.
        scores: the row of ``samples.jsonl``.
    """

    id: str
    original: np.ndarray
    reconstruction: np.ndarray
    tokens: np.ndarray | None = None
    codecs: Mapping[str, np.ndarray] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)


def write_report(
    folder: str | Path,
    result: Mapping[str, Any] | None = None,
    samples: Sequence[Sample] | None = None,
    history: Mapping[str, list[tuple[float, float]]] | None = None,
    *,
    title: str = "",
    note: str = "",
) -> Path:
    """Write ``report.html`` into ``folder``: no other file is needed to read it.

    Args:
        folder: where ``evaluate(..., out=folder)`` wrote.
        result: the result; default ``folder/result.json``.
        samples: the pictures; default those in ``folder/images``.
        history: curves of the training, as ``read_history`` returns them.
        title: headline; default the tokenizer's name.
        note: a sentence below the headline, e.g. how it was trained.

    Returns:
        The path of the page, under 5 MB; pictures that do not fit are left out and counted.

    Raises:
        ConfigError: ``result.json`` is not a result.
        DataError: there are no pictures.
    """
    folder = Path(folder)
    data = results.read_result(folder / "result.json") if result is None else result
    chosen = load_samples(folder) if samples is None else list(samples)
    if not chosen:
        raise DataError(f"write_report: expected pictures in '{folder}'; got none. Evaluate first.")
    head = _page_head(data, title, note)
    tail = _page_tail(data, history or {})
    room = LIMIT - len((head + tail).encode()) - 10_000  # the style sheet
    cards = _cards_that_fit(chosen, room)
    body = head + _gallery(cards, len(chosen) - len(cards)) + tail
    path = folder / "report.html"
    write_atomically(path, standalone(body, title or data["tokenizer"]["name"]))
    return path


def _cards_that_fit(samples: Sequence[Sample], room: int) -> list[str]:
    """Return the cards in the best quality in which all fit, else as many as fit in the lowest."""
    cards: list[str] = []
    for quality in QUALITIES:
        cards = [_card(sample, quality) for sample in samples]
        if sum(map(len, cards)) <= room:
            return cards
    while cards and sum(map(len, cards)) > room:
        cards.pop()
    return cards


def load_samples(folder: str | Path) -> list[Sample]:
    """Return the pictures that ``evaluate`` left in a folder."""
    folder = Path(folder)
    rows = {}
    table = folder / "samples.jsonl"
    if table.is_file():
        parsed = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
        rows = {row["id"].replace("/", "__"): row for row in parsed}
    places = sorted(path.parent for path in (folder / "images").glob("*/original.*"))
    return [_load_sample(place, rows.get(place.name, {})) for place in places]


def read_history(run: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Return the curves in a run's ``metrics.csv`` as (step, value) pairs; {} without a file."""
    path = Path(run) / "metrics.csv" if Path(run).is_dir() else Path(run)
    if not path.is_file():
        return {}
    curves: dict[str, list[tuple[float, float]]] = {}
    with open(path, newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            for name, text in row.items():
                if name and name != "step" and text:
                    curves.setdefault(name, []).append((float(row["step"]), float(text)))
    return curves


def _load_sample(place: Path, row: Mapping[str, Any]) -> Sample:
    tokens = place / "tokens.npy"
    codecs = {name: _read(place, name) for name in CODECS if any(place.glob(f"{name}.*"))}
    return Sample(
        row.get("id", place.name),
        _read(place, "original"),
        _read(place, "reconstruction"),
        np.load(tokens, allow_pickle=False) if tokens.is_file() else None,
        codecs,
        row,
    )


def _page_head(result: Mapping[str, Any], title: str, note: str) -> str:
    name = title or result["tokenizer"]["name"]
    tiles = "".join(_tile(result, key) for key in TILES)
    speed = result["throughput"]
    verbs = [value for key, value in speed.items() if key.endswith("_per_second")]
    tiles += _stat(
        " / ".join(map(_rounded, verbs)),
        f"encode / decode, {results.items(result)} per second",
        f"{speed['device']}, {speed['threads']} threads, batches of {speed['batch_size']}",
    )
    subtitle = f"<p>{escape(note)}</p>" if note else ""
    return (
        f"<header><h1>{escape(name)}</h1>{subtitle}{_verdict(result)}</header>"
        f'<section class="tiles">{tiles}</section>'
        f'<section class="two">{_rate_distortion(result)}{_codebook(result)}</section>'
        f"{_codec_rows(result)}"
    )


def _page_tail(result: Mapping[str, Any], history: Mapping[str, list[tuple[float, float]]]) -> str:
    curves = "".join(_curve(history, *one) for one in CURVES)
    training = f'<h2>Training</h2><section class="three">{curves}</section>' if curves else ""
    return (
        f"{training}{_all_metrics(result)}"
        f"<footer>{escape(results.footnote(result))} Same pixels on both sides, rounded to uint8. "
        "Bytes are whole files, headers included, on both sides. Thumbnails are recompressed for "
        "this page; the numbers are from the originals. rFD-EffLite0 is not comparable with "
        f"Inception FID{', nor rFD-EffLite0-clip with FVD' * (results.items(result) == 'clips')}."
        "</footer>"
    )


def _verdict(result: Mapping[str, Any]) -> str:
    parts = []
    for codec, rules in result["baselines"].items():
        point = next(one for one in rules["best_scale"] if one["factor"] == 1)
        # only what was coded in as many bytes is compared
        fitting = point.get("fitting", point)
        few = f" ({fitting['n']} that fit)" if "n" in fitting else ""
        if fitting["psnr_gain"] is None:
            continue
        gain = fitting["psnr_gain"]["value"]
        tone, word = ("good", "above") if gain >= 0 else ("bad", "below")
        label = results.codec_label(codec)
        parts.append(f'<b class="{tone}">{abs(gain):.2f} dB {word} {label}{few}</b>')
    if not parts:
        return ""
    size, unit = results.cell(result, "n_bytes"), results.items(result)[:-1]
    return (
        f'<p class="verdict">At the same {size} bytes per {unit} it is {", ".join(parts)} '
        f"in PSNR, mean of {result['data']['n']} {unit}s.</p>"
    )


def _tile(result: Mapping[str, Any], name: str) -> str:
    score = result["metrics"].get(name)
    if score is None or score["value"] is None:
        return ""
    hint = ""
    if score["interval"] is not None and score["interval"][0] < score["interval"][1]:
        hint = "95 %: " + " .. ".join(results.number(one) for one in score["interval"])
    elif "tokens" in score["detail"]:
        hint = f"on {score['detail']['tokens']:,} tokens"
    value = score["value"]
    text = f"{100 * value:.1f} %" if name == "usage" else results.number(value)
    return _stat(text, results.label(name, result), hint)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _stat(value: str, label: str, hint: str) -> str:
    return (
        f'<div class="tile"><strong>{escape(value)}</strong><span>{escape(label)}</span>'
        f"<small>{escape(hint)}</small></div>"
    )


def _rate_distortion(result: Mapping[str, Any]) -> str:
    chart = viz.line_chart(rate_series(result), _rate_label(result), "PSNR, dB", log_x=True)
    table = results.rate_table(result)
    return (
        f'<div class="card"><h2>Rate and distortion</h2>{chart}<p class="hint">Codecs at their '
        f"best quality and scale for each budget.</p>{html_table(table) if table else ''}</div>"
    )


def rate_series(result: Mapping[str, Any]) -> list[Series]:
    """Return PSNR against real bytes: the tokenizer, and every codec that was measured."""
    size = result["metrics"]["n_bytes"]["value"]
    psnr = result["metrics"]["psnr"]["value"]
    series = [Series(result["tokenizer"]["name"], [(size, psnr)])]
    fixed = result["metrics"]["fixed_bytes"]["value"]
    if result["tokenizer"]["entropy_coded"] and fixed != size:
        series.append(Series("fixed-length tokens", [(fixed, psnr)]))
    for codec, rules in result["baselines"].items():
        points = [(one["n_bytes"], one["metrics"]["psnr"]) for one in rules["best_scale"]]
        series.append(Series(results.codec_label(codec), sorted(points)))
    return series


def rate_picture(result: Mapping[str, Any]) -> str:
    """Return the curves of a result as a standalone SVG; empty without codecs."""
    if not result["baselines"]:
        return ""
    data, protocol = result["data"], result["protocol"]
    title = f"{data['name']}, n = {data['n']}, {protocol['name']}@{protocol['hash']}"
    return viz.chart_file(rate_series(result), _rate_label(result), "PSNR, dB", title)


def _rate_label(result: Mapping[str, Any]) -> str:
    return f"bytes per {results.items(result)[:-1]}, whole file"


def _codec_rows(result: Mapping[str, Any]) -> str:
    table = results.codec_table(result)
    if not table:
        return ""
    return f'<div class="card"><h2>At equal bytes</h2>{html_table(table)}</div>'


def _codebook(result: Mapping[str, Any]) -> str:
    score = result["metrics"].get("usage")
    if score is None or score["value"] is None:
        return ""
    detail = score["detail"]
    sizes, shown = detail["codebook_sizes"], detail["frequencies"][:CHARTS]
    charts = "".join(
        viz.bar_chart(
            column,
            f"codebook {k}: {size:,} codes, most frequent first (log counts); "
            f"{100 * detail['per_codebook'][k]:.1f} % hit",
        )
        for k, (column, size) in enumerate(zip(shown, sizes, strict=False))
    )
    more = len(sizes) - len(shown)
    rest = f"<p class='hint'>and {more} more codebooks</p>" if more > 0 else ""
    return (
        f'<div class="card"><h2>Codebook</h2>{charts}{rest}{_codebook_facts(result)}'
        f'<p class="hint">Counted on {detail["tokens"]:,} tokens; usage grows with their number.'
        "</p></div>"
    )


def _codebook_facts(result: Mapping[str, Any]) -> str:
    metrics = result["metrics"]
    nominal = metrics["entropy_bits"]["detail"]["nominal_bits"]
    facts = {
        "perplexity": results.cell(result, "perplexity"),
        "dead codes": results.cell(result, "dead_codes"),
        "bits per position, nominal": results.number(nominal),
        "bits per position, marginal entropy": results.cell(result, "entropy_bits"),
        "bits per token position in the file": results.number(
            8 * metrics["n_bytes"]["value"] * len(result["tokenizer"]["codebook_sizes"] or [0])
            / metrics["tokens"]["value"]
        ),
    }  # fmt: skip
    return html_table(
        f"| over all {results.items(result)} | |\n||\n"
        + "\n".join(f"| {k} | {v} |" for k, v in facts.items())
    )


def _curve(
    history: Mapping[str, list[tuple[float, float]]], title: str, names: Sequence[str], log: bool
) -> str:
    series = [Series(name, _thinned(history[name])) for name in names if history.get(name)]
    chart = viz.line_chart(series, "optimizer step", title, log_y=log)
    return f'<div class="card"><h3>{escape(title)}</h3>{chart}</div>' if chart else ""


def _thinned(points: list[tuple[float, float]], limit: int = 400) -> list[tuple[float, float]]:
    stride = max(1, -(-len(points) // limit))
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _all_metrics(result: Mapping[str, Any]) -> str:
    table = html_table(results.metric_table(result).rsplit("\n\n", 1)[0])
    distance = "rFD-EffLite0-clip" if results.items(result) == "clips" else "rFD-EffLite0"
    anchors = [
        f"{name.replace('_', ' ')}: PSNR {results.number(values.get('psnr'))}, {distance} "
        f"{results.number(values.get(distance)) or 'skipped'}"
        for name, values in result["anchors"].items()
    ]
    hint = (
        f'<p class="hint">Anchors, same run: {escape("; ".join(anchors))}.</p>' if anchors else ""
    )
    return f'<h2>Every number</h2><section class="card">{table}{hint}</section>'


def _gallery(cards: Sequence[str], left_out: int) -> str:
    more = f"<p class='hint'>{left_out} more pictures are left out to keep this page small.</p>"
    return f"<h2>Pictures</h2>{''.join(cards)}{more if left_out else ''}"


def _card(sample: Sample, quality: int) -> str:
    row = sample.scores
    figures = [_figure(sample.original, "original", quality)]
    figures.append(_figure(sample.reconstruction, _caption("reconstruction", row), quality))
    error = viz.error_map(sample.original, sample.reconstruction)
    figures.append(_figure(error, "error, bright = 64 grey levels or more", quality))
    if sample.tokens is not None and sample.tokens.ndim in (2, 3):
        grid = sample.tokens.shape[:2]
        caption = f"tokens, {grid[0]} x {grid[1]}"
        figures.append(
            _figure(viz.token_mosaic(sample.tokens, grid), caption, None, sample.original)
        )
    if sample.tokens is not None and sample.tokens.ndim == 4:
        caption = f"tokens, {' x '.join(map(str, sample.tokens.shape[:3]))}, latent frames in a row"
        strip = viz.token_strip(sample.tokens)
        figures.append(_figure(strip, caption, None, strip.repeat(4, 0).repeat(4, 1)))
    codecs = "".join(
        _figure(pixels, _caption(results.codec_label(name), row.get(name, {})), quality)
        for name, pixels in sample.codecs.items()
    )
    same = f'<h4>the same bytes as a file of</h4><div class="row">{codecs}</div>' if codecs else ""
    return (
        f'<article class="card"><h3>{escape(sample.id)}</h3>'
        f'<div class="row">{"".join(figures)}</div>{same}</article>'
    )


def _caption(name: str, row: Mapping[str, Any]) -> str:
    words = [name]
    if "psnr" in row:
        words.append(f"{row['psnr']:.2f} dB")
    if "n_bytes" in row:
        words.append(f"{int(row['n_bytes']):,} bytes")
    if row.get("fits") is False:
        words.append("over budget")
    return ", ".join(words)


def _figure(
    pixels: np.ndarray, caption: str, quality: int | None, like: np.ndarray | None = None
) -> str:
    """Return a picture or clip with its caption; without a quality a grid of exact cells."""
    buffer = io.BytesIO()
    first, *others = [Image.fromarray(one) for one in (pixels if pixels.ndim == 4 else [pixels])]
    if quality is None:
        first.save(buffer, "PNG", optimize=True)
    elif others:
        moving: dict[str, Any] = {"save_all": True, "append_images": others, "duration": FRAME}
        first.save(buffer, "WEBP", quality=quality, loop=0, **moving)
    else:
        first.save(buffer, "WEBP", quality=quality)
    kind = "png" if quality is None else "webp"
    size = (pixels if like is None else like).shape[-3:]
    style = ' class="cells"' if quality is None else ""
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img{style} width="{size[1]}" height="{size[0]}" alt="{escape(caption)}" '
        f'src="data:image/{kind};base64,{encoded}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
    )


def _read(place: Path, name: str) -> np.ndarray:
    """Return a picture, or the frames of a clip."""
    clip = place / f"{name}.npy"
    if clip.is_file():
        frames: np.ndarray = np.load(clip, allow_pickle=False)
        return frames
    with Image.open(place / f"{name}.png") as picture:
        return np.array(picture.convert("RGB"))
