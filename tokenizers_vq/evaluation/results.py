"""Result files: written whole or not at all, read strictly, tabled only with their like."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.files import write_atomically

SCHEMA = 1
PACKAGES = (
    "tokenizers-vq", "torch", "torchvision", "torchmetrics", "numpy", "pillow",
    "efficientnet-lite-pytorch", "torch-fidelity", "torchaudio", "soundfile", "av",
)  # fmt: skip
COLUMNS = (
    "psnr", "ssim", "ms_ssim", "lpips-alex", "cos-EffLite0", "flicker", "lost_change",
    "rFD-EffLite0", "rFD-EffLite0-clip", "rFID", "rFVD", "bpp",
    "n_bytes", "kbps", "pesq_wb", "estoi", "visqol", "distillmos", "mel_distance", "usage",
    "dead_codes",
)  # fmt: skip
CODEC_COLUMNS = (
    "psnr", "later_psnr", "ssim", "cos-EffLite0", "flicker", "lost_change", "rFD-EffLite0",
    "rFD-EffLite0-clip", "rFVD",
)  # fmt: skip
SOUND_COLUMNS = (
    "kbps", "payload_kbps", "nominal_kbps", "pesq_wb", "estoi", "visqol", "distillmos",
    "dnsmos_ovrl", "plcmos", "utmos", "dwer", "speaker_similarity", "mel_distance",
    "stft_distance", "si_sdr", "bitrate_efficiency",
)  # fmt: skip
ITEM = {"pictures": "image", "clips": "clip"}
CODEC_LABELS = {
    "jpeg": "JPEG", "jpeg2000": "JPEG 2000", "webp": "WebP", "avif": "AVIF", "svtav1": "SVT-AV1",
}  # fmt: skip
LABELS = {
    "later_psnr": "PSNR of later frames dB", "flicker": "flicker, grey levels",
    "lost_change": "lost change, grey levels", "change_psnr": "PSNR of changes dB",
    "psnr": "PSNR dB", "psnr_pooled": "PSNR of mean error dB", "ssim": "SSIM",
    "ms_ssim": "MS-SSIM", "lpips-alex": "LPIPS-alex", "lpips-vgg": "LPIPS-vgg",
    "bpp": "bits per pixel (file)", "n_bytes": "bytes per image (file)",
    "fixed_bytes": "bytes per image (fixed-length tokens)",
    "nominal_bpp": "bits per pixel (nominal)", "usage": "codebook usage",
    "perplexity": "perplexity", "entropy_bits": "marginal entropy, bit per position",
    "joint_bits": "joint entropy, bit per position", "dead_codes": "dead codes",
    "bitrate_efficiency": "bitrate efficiency", "kbps": "kb/s (file)",
    "payload_kbps": "kb/s (packets)", "fixed_kbps": "kb/s (fixed-length tokens)",
    "nominal_kbps": "kb/s (nominal)", "tokens_per_second": "tokens per second",
    "pesq_wb": "PESQ-wb", "pesq_nb": "PESQ-nb", "stoi": "STOI", "estoi": "ESTOI",
    "visqol": "ViSQOL", "distillmos": "DistillMOS", "dnsmos_ovrl": "DNSMOS ovrl",
    "dnsmos_sig": "DNSMOS sig", "dnsmos_bak": "DNSMOS bak", "dnsmos_p808": "DNSMOS P.808",
    "plcmos": "PLCMOS", "utmos": "UTMOS", "dwer": "dWER", "dcer": "dCER",
    "speaker_similarity": "speaker similarity", "mel_distance": "mel distance",
    "mel_distance_7": "mel distance, 7 scales", "stft_distance": "STFT distance",
    "si_sdr": "SI-SDR dB", "vuv_f1": "V/UV F1", "periodicity_rmse": "periodicity RMSE",
}  # fmt: skip


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as JSON, atomically; infinities and NaN are an error, not a file."""
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def read_result(path: str | Path) -> dict[str, Any]:
    """Return a result file.

    Raises:
        ConfigError: it is not a result of this schema.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"read_result: expected JSON in '{path}'; got {error}. Evaluate again."
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"read_result: expected schema {SCHEMA} in '{path}'; got {schema}. Evaluate again."
        )
    return dict(data)


def environment(device: str) -> dict[str, Any]:
    """Return what a number may depend on beside its protocol: versions, commit, machine."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "commit": _commit(Path(__file__).resolve().parents[2] / ".git"),
        "python": platform.python_version(),
        "versions": versions,
        "device": device,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def results_table(results: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Return one Markdown table, a row per result, best PSNR first.

    Columns that no result has are left out; a skipped or missing number is an empty cell.

    Raises:
        ConfigError: the results differ in protocol, data or number of pictures.
    """
    check_comparable(results)
    every = dict.fromkeys(name for result in results for name in result["metrics"])
    # results of tvq tokbench have none of the usual columns
    chosen = columns if any(name in every for name in columns) else list(every)
    shown = [name for name in chosen if any(cell(result, name) for result in results)]
    lines = ["| tokenizer | " + " | ".join(label(name) for name in shown) + " |"]
    lines.append("|---|" + "---:|" * len(shown))
    for result in sorted(results, key=_quality):
        cells = " | ".join(cell(result, name) for name in shown)
        lines.append(f"| {result['tokenizer']['name']} | {cells} |")
    return "\n".join([*lines, "", footnote(results[0])])


def check_comparable(results: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless all results have one protocol, one data set and one number of pictures.

    Raises:
        ConfigError: they do not, or there are none.
    """
    if not results:
        raise ConfigError("results: expected at least one; got none. Run an evaluation first.")
    for what, key in (("protocol", _protocol), ("data set", _data), ("number of pictures", _n)):
        found = sorted({key(result) for result in results})
        if len(found) > 1:
            raise ConfigError(
                f"results: expected one {what} in a table; got {', '.join(found)}. "
                "Make one table for each."
            )


def metric_table(result: Mapping[str, Any]) -> str:
    """Return every metric of one result as a Markdown table, with interval, n and reasons."""
    lines = ["| metric | value | 95 % interval | n |", "|---|---:|---:|---:|"]
    for name, score in result["metrics"].items():
        if score["status"] != "ok":
            lines.append(f"| {label(name, result)} | skipped: {score['reason']} | | |")
            continue
        interval = score["interval"]
        low_high = "" if interval is None else " .. ".join(number(one) for one in interval)
        lines.append(
            f"| {label(name, result)} | {number(score['value'])} | {low_high} | {score['n']:,} |"
        )
    for name, value in result["throughput"].items():
        if isinstance(value, float):
            lines.append(f"| {name.replace('_', ' ')} | {number(value)} | | |")
    return "\n".join([*lines, "", footnote(result)])


def codec_table(result: Mapping[str, Any]) -> str:
    """Return the comparison at equal real bytes as a Markdown table; empty without codecs.

    What a codec did with more bytes than the tokenizer's is not in it: where its smallest file of
    some items is larger, its row is about the others, and says of how many.
    """
    names = _codec_columns(result)
    heading = " | ".join(label(name) for name in names)
    lines = [
        f"| file | rule | bytes | {heading} | tokenizer's PSNR gain |",
        "|---|---|---:|" + "---:|" * (len(names) + 1),
    ]
    own = " | ".join(cell(result, name) for name in names)
    lines.append(f"| **{result['tokenizer']['name']}** | | {cell(result, 'n_bytes')} | {own} | |")
    for codec, rules in result["baselines"].items():
        for rule, points in rules.items():
            point = next(one for one in points if one["factor"] == 1)
            lines.append(_codec_row(result, codec_label(codec), rule.replace("_", " "), point))
    if items(result) == "clips":  # what needs no bytes is worth a row: a repeated first frame is
        for anchor, values in result["anchors"].items():
            shown = " | ".join(number(values.get(name)) for name in names)
            lines.append(f"| _{anchor.replace('_', ' ')}_ | | | {shown} | |")
    return "\n".join(lines) if result["baselines"] else ""


def _codec_columns(result: Mapping[str, Any]) -> list[str]:
    return [name for name in CODEC_COLUMNS if cell(result, name)]


def _codec_row(result: Mapping[str, Any], codec: str, rule: str, point: Mapping[str, Any]) -> str:
    # results from before there was ``fitting`` say how many are over
    over = f" ({point['over_budget']} over)" if point["over_budget"] else ""
    if "fitting" in point:
        point, over = point["fitting"], ""
        rule += f", {point['n']} of {result['data']['n']} fit"
    columns = _codec_columns(result)
    values = " | ".join(number(point["metrics"].get(name)) for name in columns)
    gain, text = point["psnr_gain"], ""
    if gain is not None:
        low, high = gain["interval"] or (gain["value"], gain["value"])
        text = f"{gain['value']:+.2f} dB ({low:+.2f} .. {high:+.2f})"
    return f"| {codec} | {rule} | {number(point['n_bytes'])}{over} | {values} | {text} |"


def rate_table(result: Mapping[str, Any]) -> str:
    """Return how the bytes compare at equal PSNR as a Markdown table; empty without curves."""
    lines = ["| against | bytes for the same PSNR | 95 % interval |", "|---|---:|---:|"]
    for codec, one in result.get("rate_differences", {}).items():
        if one["percent"] is None:
            lines.append(f"| {codec_label(codec)} | its curve does not reach that PSNR | |")
            continue
        span = one["interval"]
        low_high = f"{span[0]:+.1f} .. {span[1]:+.1f} %" if span else ""
        lines.append(f"| {codec_label(codec)} | {one['percent']:+.1f} % | {low_high} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def coders(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a result per coder that was measured: each depth and classic codec of one on sound.

    A result of ``tvq tokbench`` has several parts, and maybe damage beside the tokenizer. One on
    pictures comes back as it is: its codecs were given the tokenizer's bytes.
    """
    if result.get("kind") == "tokbench":
        own = result["tokenizer"] or {"name": None}
        return [
            {
                **result, **one, "metrics": metrics,
                "tokenizer": own if name == own["name"] else {"name": name, "sha256": ""},
            }
            for one in result["parts"]
            for name, metrics in one["coders"].items()
        ]  # fmt: skip
    if "depths" not in result:
        return [dict(result)]
    own, data = result["tokenizer"], result["data"]["name"]
    protocol = result["protocol"]["name"]
    start = f"tvq eval {own['name']}" if result["depths"] else "python eval/speech_codecs.py"
    command = result.get("command") or f"{start} --protocol {protocol} --data {data}"
    found = [
        ({**own, "name": f"{own['name']}, {depth}"}, one["metrics"])
        for depth, one in result["depths"].items()
    ]
    for points in result["baselines"].values():
        coded = [one for one in points if "metrics" in one]
        found += [({"name": one["label"], "sha256": ""}, one["metrics"]) for one in coded]
    return [
        {**result, "tokenizer": identity, "metrics": metrics, "command": command}
        for identity, metrics in found
    ]


def sound_table(result: Mapping[str, Any]) -> str:
    """Return one row per depth, codec and anchor of a result about sound as a Markdown table.

    A number of fewer clips than were measured carries their count.
    """
    name, total = result["tokenizer"]["name"], result["data"]["n"]
    rows = [(f"**{name}**, {k}", one["metrics"]) for k, one in result["depths"].items()]
    for points in result["baselines"].values():
        rows += [(one["label"], one["metrics"]) for one in points if "metrics" in one]
    rows += [(f"_{k.replace('_', ' ')}_", one) for k, one in result["anchors"].items()]
    shown = [k for k in SOUND_COLUMNS if any(_value(row, k) is not None for _, row in rows)]
    lines = ["| coder | " + " | ".join(label(k) for k in shown) + " |"]
    lines.append("|---|" + "---:|" * len(shown))
    for title, row in rows:
        cells = []
        for key in shown:
            few = row[key]["n"] < total if _value(row, key) is not None else False
            cells.append(number(_value(row, key)) + (f" (n {row[key]['n']})" if few else ""))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _value(metrics: Mapping[str, Any], name: str) -> float | None:
    score = metrics.get(name)
    value: float | None = None if score is None else score["value"]
    return value


def footnote(result: Mapping[str, Any]) -> str:
    """Return the one line without which the numbers mean nothing."""
    data = result["data"]
    commit = (result["environment"]["commit"] or "unknown")[:10]
    return (
        f"Protocol {_protocol(result)}; data {data['name']} ({data['sha256'][:12]}), "
        f"{data['n']} {items(result)}; commit {commit}; seed {result['seed']}."
    )


def items(result: Mapping[str, Any]) -> str:
    """Return what a result counts: pictures or clips."""
    return str(result["data"].get("unit", "pictures"))


def label(name: str, result: Mapping[str, Any] | None = None) -> str:
    """Return the name of a metric as it is printed, in a table of one result or of any."""
    text = LABELS.get(name, name)
    return text if result is None else text.replace("per image", f"per {ITEM[items(result)]}")


def codec_label(codec: str) -> str:
    """Return the name of a codec as it is printed."""
    return CODEC_LABELS.get(codec, codec)


def cell(result: Mapping[str, Any], name: str) -> str:
    """Return a metric's value as text, empty when there is none."""
    score = result["metrics"].get(name)
    return "" if score is None else number(score["value"])


def number(value: float | None) -> str:
    """Return four significant digits, thousands separated; None is empty."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    digits = 0 if abs(value) >= 1000 else 2 if abs(value) >= 10 else 3 if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"


def _quality(result: Mapping[str, Any]) -> float:
    metrics = result["metrics"]
    names = ("psnr", "pesq_wb", *(name for name in metrics if name.startswith(("T-NED", "F-Sim"))))
    values = (metrics[name]["value"] for name in names if name in metrics)
    return next((-value for value in values if value is not None), 0.0)


def _protocol(result: Mapping[str, Any]) -> str:
    return f"{result['protocol']['name']}@{result['protocol']['hash']}"


def _data(result: Mapping[str, Any]) -> str:
    return f"{result['data']['name']}@{result['data']['sha256'][:12]}"


def _n(result: Mapping[str, Any]) -> str:
    return str(result["data"]["n"])


def _commit(git: Path) -> str | None:
    """Return the checked-out commit by reading ``.git``, None outside a clone."""
    if git.is_file():  # a work tree of another clone: the file names its folder
        git = Path(git.read_text().removeprefix("gitdir: ").strip())
    head = git / "HEAD"
    if not head.is_file():
        return None
    text = head.read_text().strip()
    if not text.startswith("ref: "):
        return text
    name = text.removeprefix("ref: ")
    if (git / "commondir").is_file():
        git = git / (git / "commondir").read_text().strip()
    if (git / name).is_file():
        return (git / name).read_text().strip()
    packed = git / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
