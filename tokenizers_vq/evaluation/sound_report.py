"""One self-contained HTML page about one evaluation of sound: clips, curves, tables, protocol."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tokenizers_vq import viz
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically
from tokenizers_vq.page import html_table, standalone
from tokenizers_vq.viz import Series

LIMIT = 5_000_000  # bytes of the page
CURVES = ("pesq_wb", "estoi", "visqol", "distillmos", "mel_distance", "si_sdr")
TILES = ("kbps", "pesq_wb", "estoi", "visqol", "distillmos", "bitrate_efficiency")


def write_sound_report(folder: str | Path, result: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` into ``folder``: no other file is needed to read and hear it.

    Args:
        folder: where ``evaluate(..., out=folder)`` wrote.
        result: the result; default ``folder/result.json``.

    Returns:
        The path of the page, under 5 MB; clips that do not fit are left out and counted.

    Raises:
        ConfigError: ``result.json`` is not a result.
    """
    folder = Path(folder)
    data = results.read_result(folder / "result.json") if result is None else result
    title = data["tokenizer"]["name"]
    head, tail = _head(data), _tail(data)
    cards = [_card(place) for place in sorted((folder / "sounds").glob("*/names.json"))]
    shown = list(cards)
    while shown and sum(map(len, shown)) + len(head) + len(tail) > LIMIT - 10_000:
        shown.pop()
    heading = "<h2>Clips</h2>" if cards else ""
    left_out = len(cards) - len(shown)
    more = f"<p class='hint'>{left_out} more clips are left out to keep this page small.</p>"
    body = head + heading + "".join(shown) + (more if left_out else "") + tail
    path = folder / "report.html"
    write_atomically(path, standalone(body, title))
    return path


def _head(result: Mapping[str, Any]) -> str:
    tiles = "".join(_tile(result, name) for name in TILES)
    speed = result["throughput"]
    if speed:
        factors = " / ".join(
            results.number(speed[f"{verb}_real_time_factor"]) for verb in ("encode", "decode")
        )
        note = f"real-time factor, {speed['device']}, {speed['threads']} thread"
        tiles += _stat(factors, "encode / decode", note)
    curves = "".join(_curve(result, name) for name in CURVES)
    return (
        f"<header><h1>{escape(result['tokenizer']['name'])}</h1></header>"
        f'<section class="tiles">{tiles}</section>'
        f'<div class="card"><h2>At real bytes</h2>{html_table(results.sound_table(result))}</div>'
        f'<section class="two">{curves}</section>{_levels(result)}'
    )


def _tail(result: Mapping[str, Any]) -> str:
    table = html_table(results.metric_table(result).rsplit("\n\n", 1)[0])
    unused = result["data"]["skipped"]
    names = "; ".join(f"{name}: {reason}" for name, reason in unused.items())
    left_out = f" {len(unused)} files could not be used ({names})." if unused else ""
    return (
        f'<h2>Every number</h2><section class="card">{table}</section>'
        f"<footer>{escape(results.footnote(result))}{escape(left_out)} Both sides clipped and "
        "rounded to 16 bit. Bytes are whole files, headers included, on both sides; packets alone "
        "are what a stream would cost. Predicted opinion scores (PESQ, ViSQOL, DistillMOS, DNSMOS, "
        "PLCMOS) are no opinions.</footer>"
    )


def _tile(result: Mapping[str, Any], name: str) -> str:
    score = result["metrics"].get(name)
    if score is None or score["value"] is None:
        return ""
    hint = ""
    if score["interval"] is not None:
        hint = "95 %: " + " .. ".join(results.number(one) for one in score["interval"])
    return _stat(results.number(score["value"]), results.label(name), hint)


def _stat(value: str, label: str, hint: str) -> str:
    return (
        f'<div class="tile"><strong>{escape(value)}</strong><span>{escape(label)}</span>'
        f"<small>{escape(hint)}</small></div>"
    )


def _curve(result: Mapping[str, Any], name: str) -> str:
    own = [_point(one["metrics"], name) for one in result["depths"].values()]
    series = [Series(result["tokenizer"]["name"], _known(own))]
    for points in result["baselines"].values():
        coded = [one for one in points if "metrics" in one]
        if coded:
            title = coded[0]["label"] if len(coded) == 1 else coded[0]["label"].split()[0]
            series.append(Series(title, _known([_point(one["metrics"], name) for one in coded])))
    chart = viz.line_chart(series, "kb/s, whole file", results.label(name), log_x=True)
    return f'<div class="card"><h3>{escape(results.label(name))}</h3>{chart}</div>' if chart else ""


def _point(metrics: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    return tuple(metrics.get(key, {}).get("value") for key in ("kbps", name))


def _known(points: Sequence[tuple[Any, Any]]) -> list[tuple[float, float]]:
    return sorted((x, y) for x, y in points if x is not None and y is not None)


def _levels(result: Mapping[str, Any]) -> str:
    """Return usage, perplexity and efficiency codebook by codebook."""
    metrics = result["metrics"]
    if metrics.get("usage", {}).get("value") is None:
        return ""
    names = ("usage", "perplexity", "entropy_bits", "bitrate_efficiency")
    columns = [metrics[name]["detail"]["per_codebook"] for name in names]
    sizes = metrics["usage"]["detail"]["codebook_sizes"]
    lines = ["| codebook | codes | usage | perplexity | entropy, bit | bitrate efficiency |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for k, values in enumerate(zip(sizes, *columns, strict=True)):
        lines.append(f"| {k + 1} | " + " | ".join(results.number(one) for one in values) + " |")
    tokens = metrics["usage"]["detail"]["tokens"]
    return (
        f'<div class="card"><h2>Codebooks</h2>{html_table(chr(10).join(lines))}'
        f'<p class="hint">Counted on {tokens:,} positions; all of these grow with their number.'
        "</p></div>"
    )


def _card(names: Path) -> str:
    """Return the players of one clip; ``names`` lists what lies beside it."""
    content = json.loads(names.read_text(encoding="utf-8"))
    players = []
    for k, label in enumerate(content["sounds"]):
        sound = base64.b64encode((names.parent / f"{k:02d}.flac").read_bytes()).decode()
        players.append(
            f"<figure><audio controls preload='none' style='width:100%' "
            f'src="data:audio/flac;base64,{sound}"></audio>'
            f"<figcaption>{escape(label)}</figcaption></figure>"
        )
    return (
        f'<article class="card"><h3>{escape(content["id"])}</h3>'
        f'<div class="row">{"".join(players)}</div></article>'
    )
