"""One self-contained HTML page about one evaluation: pictures, curves, tables, protocol."""

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

from tokenizers_vq import results, viz
from tokenizers_vq.codecs import CODECS
from tokenizers_vq.errors import DataError
from tokenizers_vq.viz import Series

LIMIT = 5_000_000  # bytes of the page
QUALITIES = (94, 85, 70)  # of the thumbnails, tried in turn until the page is small enough
TILES = ("psnr", "ssim", "bpp", "n_bytes", "usage", "cos-EffLite0")
CURVES = (
    ("Loss", ("train/loss", "val/loss"), True),
    ("PSNR on held-out pictures, dB", ("val/psnr",), False),
    ("Codebook usage", ("codebook/usage", "val/usage", "val/codebook/usage"), False),
)


@dataclass(frozen=True)
class Sample:
    """One held-out picture in the report.

    Attributes:
        id: its name.
        original: ``(H, W, 3)`` uint8.
        reconstruction: ``(H, W, 3)`` uint8.
        tokens: ``(h, w, K)`` int64, None when the codes are no grid.
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
    page = ""
    for quality in QUALITIES:
        cards = [_card(sample, quality) for sample in chosen]
        page = head + _gallery(cards, 0) + tail
        if len(page.encode()) < LIMIT:
            break
    else:
        left = 0
        while len(page.encode()) >= LIMIT and cards:
            cards.pop()
            left += 1
            page = head + _gallery(cards, left) + tail
    path = folder / "report.html"
    results.write_text(path, page)
    return path


def load_samples(folder: str | Path) -> list[Sample]:
    """Return the pictures that ``evaluate`` left in a folder."""
    folder = Path(folder)
    rows = {}
    table = folder / "samples.jsonl"
    if table.is_file():
        parsed = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
        rows = {row["id"].replace("/", "__"): row for row in parsed}
    places = sorted(path.parent for path in (folder / "images").glob("*/original.png"))
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
    codecs = {
        name: _read(place / f"{name}.png") for name in CODECS if (place / f"{name}.png").is_file()
    }
    return Sample(
        row.get("id", place.name),
        _read(place / "original.png"),
        _read(place / "reconstruction.png"),
        np.load(tokens, allow_pickle=False) if tokens.is_file() else None,
        codecs,
        row,
    )


def _page_head(result: Mapping[str, Any], title: str, note: str) -> str:
    name = title or result["tokenizer"]["name"]
    tiles = "".join(_tile(result, key) for key in TILES)
    speed = result["throughput"]
    tiles += _stat(
        f"{results.number(speed['encode_images_per_second'])} / "
        f"{results.number(speed['decode_images_per_second'])}",
        "encode / decode, pictures per second",
        f"{speed['device']}, {speed['threads']} threads, batches of {speed['batch_size']}",
    )
    subtitle = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{STYLE}</style></head><body><main>"
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
        "Inception FID.</footer></main></body></html>\n"
    )


def _verdict(result: Mapping[str, Any]) -> str:
    parts = []
    for codec, rules in result["baselines"].items():
        point = next(one for one in rules["best_scale"] if one["factor"] == 1)
        gain = point["psnr_gain"]["value"]
        tone, word = ("good", "above") if gain >= 0 else ("bad", "below")
        parts.append(f'<b class="{tone}">{abs(gain):.2f} dB {word} {codec.upper()}</b>')
    if not parts:
        return ""
    size = results.cell(result, "n_bytes")
    return (
        f'<p class="verdict">At the same {size} bytes per picture it is {", ".join(parts)} '
        f"in PSNR, on {result['data']['n']} pictures it never saw.</p>"
    )


def _tile(result: Mapping[str, Any], name: str) -> str:
    score = result["metrics"].get(name)
    if score is None or score["value"] is None:
        return ""
    hint = ""
    if score["interval"] is not None:
        hint = "95 %: " + " .. ".join(results.number(one) for one in score["interval"])
    elif "tokens" in score["detail"]:
        hint = f"on {score['detail']['tokens']:,} tokens"
    value = score["value"]
    text = f"{100 * value:.1f} %" if name == "usage" else results.number(value)
    return _stat(text, results.label(name), hint)


def _stat(value: str, label: str, hint: str) -> str:
    return (
        f'<div class="tile"><strong>{escape(value)}</strong><span>{escape(label)}</span>'
        f"<small>{escape(hint)}</small></div>"
    )


def _rate_distortion(result: Mapping[str, Any]) -> str:
    size = result["metrics"]["n_bytes"]["value"]
    psnr = result["metrics"]["psnr"]["value"]
    series = [Series(result["tokenizer"]["name"], [(size, psnr)])]
    fixed = result["metrics"]["fixed_bytes"]["value"]
    if result["tokenizer"]["entropy_coded"] and fixed != size:
        series.append(Series("fixed-length tokens", [(fixed, psnr)]))
    for codec, rules in result["baselines"].items():
        points = [(one["n_bytes"], one["metrics"]["psnr"]) for one in rules["best_scale"]]
        series.append(Series(codec.upper(), sorted(points)))
    chart = viz.line_chart(series, "bytes per picture, whole file", "PSNR, dB", log_x=True)
    return (
        f'<div class="card"><h2>Rate and distortion</h2>{chart}<p class="hint">Codecs at their '
        "best quality and scale for each budget.</p></div>"
    )


def _codec_rows(result: Mapping[str, Any]) -> str:
    table = results.codec_table(result)
    if not table:
        return ""
    return f'<div class="card"><h2>At equal bytes</h2>{_html_table(table)}</div>'


def _codebook(result: Mapping[str, Any]) -> str:
    score = result["metrics"].get("usage")
    if score is None or score["value"] is None:
        return ""
    detail = score["detail"]
    sizes = detail["codebook_sizes"]
    charts = "".join(
        viz.bar_chart(
            column,
            f"codebook {k}: {size:,} codes, most frequent first (log counts); "
            f"{100 * detail['per_codebook'][k]:.1f} % hit",
        )
        for k, (column, size) in enumerate(zip(detail["frequencies"], sizes, strict=False))
    )
    more = len(sizes) - len(detail["frequencies"])
    rest = f"<p class='hint'>and {more} more codebooks</p>" if more > 0 else ""
    return (
        f'<div class="card"><h2>Codebook</h2>{charts}{rest}<p class="hint">Counted on '
        f"{detail['tokens']:,} tokens; usage grows with their number.</p></div>"
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
    table = _html_table(results.metric_table(result).rsplit("\n\n", 1)[0])
    anchors = [
        f"{name.replace('_', ' ')}: PSNR {results.number(values.get('psnr'))}, rFD-EffLite0 "
        f"{results.number(values.get('rFD-EffLite0')) or 'skipped'}"
        for name, values in result["anchors"].items()
    ]
    hint = (
        f'<p class="hint">Anchors, same run: {escape("; ".join(anchors))}.</p>' if anchors else ""
    )
    return f'<h2>Every number</h2><section class="card">{table}{hint}</section>'


def _html_table(markdown: str) -> str:
    rows = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for line in markdown.strip().splitlines()
    ]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell.replace('**', ''))}</td>" for cell in row) + "</tr>"
        for row in rows[2:]
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _gallery(cards: Sequence[str], left_out: int) -> str:
    more = f"<p class='hint'>{left_out} more pictures are left out to keep this page small.</p>"
    return f"<h2>Held-out pictures</h2>{''.join(cards)}{more if left_out else ''}"


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
    codecs = "".join(
        _figure(pixels, _caption(name.upper(), row.get(name, {})), quality)
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
    """Return a picture with its caption; without a quality it is a grid of exact cells."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if quality is None:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "WEBP", quality=quality)
    kind = "png" if quality is None else "webp"
    size = pixels.shape if like is None else like.shape
    style = ' class="cells"' if quality is None else ""
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img{style} width="{size[1]}" height="{size[0]}" alt="{escape(caption)}" '
        f'src="data:image/{kind};base64,{encoded}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
    )


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5c6773;--line:#dfe3e8;--page:#f6f7f9;
--card:#fff;--accent:#2563c9;--good:#16794f;--bad:#b4412b}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaee;--soft:#9aa5b1;--line:#323a44;--page:#14181d;
--card:#1d232a;--accent:#6ea8ff;--good:#5fcf98;--bad:#ff8f78}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1160px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:2rem;line-height:1.2;margin:0 0 8px;letter-spacing:-.015em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:36px 0 12px;letter-spacing:-.005em}h3{font-size:1rem;margin:0 0 10px}
h4{font-size:.82rem;font-weight:500;color:var(--soft);margin:14px 0 6px}
header p{margin:4px 0;color:var(--soft)}.verdict{font-size:1.08rem;max-width:84ch}
.verdict b{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px;
margin-bottom:16px;min-width:0}.card h2{margin-top:0}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(146px,1fr));margin:24px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.tile strong{display:block;font-size:1.45rem;font-weight:650;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}.tile span{display:block;font-size:.85rem;line-height:1.35}
.tile small,.hint,footer,figcaption{color:var(--soft);font-size:.82rem}
.tile small{display:block;font-variant-numeric:tabular-nums;margin-top:2px}
.two{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr))}
.three{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr))}
.row{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(220px,46%),1fr))}
figure{margin:0}img{display:block;width:100%;height:auto;border-radius:8px;background:var(--line)}
.cells{image-rendering:pixelated}figcaption{margin-top:5px;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;
font-variant-numeric:tabular-nums}th{text-align:left;font-weight:600;color:var(--soft)}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}svg{display:block;width:100%;height:auto}
svg text{font:13px system-ui,sans-serif;fill:var(--soft)}svg .m{text-anchor:middle}
svg .e{text-anchor:end}svg .n{fill:var(--ink)}svg line{stroke:var(--line)}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}.mark{stroke:var(--card);stroke-width:2}
.bars rect{fill:var(--accent)}svg.bars{margin-bottom:10px}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.85rem;margin-top:6px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}
footer{margin-top:40px;border-top:1px solid var(--line);padding-top:14px;max-width:84ch}
@media print{body{background:#fff}.card,.tile{break-inside:avoid}}
"""
