"""Say whether each metric of speech ranks clean > light > heavy damage, from a result.

The result is one of ``eval/speech_codecs.py`` with Opus 12 and 6 and the anchors of ``speech_16k``:

python eval/rank_speech_metrics.py eval/results/speech_codecs/speech_16k_librispeech_other
"""

import argparse
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically

LADDERS = {  # clean first, heaviest last
    "codec": ("clean", "opus12", "opus6"),
    "noise": ("clean", "noise20", "4 bit"),
    "band": ("clean", "lp 2k"),
}
CONDITIONS = ("clean", "opus12", "opus6", "noise20", "4 bit", "lp 2k")
# ours and those of another measurement: 13 clips, 114 s of LibriSpeech dev-clean and two others,
# whole clips, from the wheels' own calls; the last groups on 5 clips
EARLIER = {
    "distillmos": (4.24, 3.84, 2.61, 2.97, 1.53, 3.37),
    "dnsmos_ovrl": (3.21, 3.13, 2.60, 2.44, 2.37, 3.15),
    "dnsmos_sig": (3.56, 3.45, 2.99, 3.47, 2.70, 3.49),
    "dnsmos_p808": (3.90, 3.67, 2.90, 2.91, 2.63, 3.11),
    "plcmos": (4.27, 3.88, 2.84, 2.68, 1.69, 3.71),
    "pesq_wb": (4.64, 3.83, 2.20, 1.51, 1.14, 3.54),
    "pesq_nb": (4.55, 4.05, 2.96, 2.51, 1.50, 4.39),
    "stoi": (1, 0.961, 0.881, 0.940, 0.836, 0.976),
    "estoi": (1, 0.929, 0.813, 0.851, 0.629, 0.937),
    "visqol": (4.63, 4.06, 2.35, None, None, None),
    "speaker_similarity": (1, 0.985, 0.859, None, None, None),
    "dwer": (0, 0.054, 0.142, None, None, None),
    "dcer": (0, 0.032, 0.067, None, None, None),
    "mel_distance": (0, 0.59, 1.86, 2.62, None, None),
    "mel_distance_7": (0, 0.92, 2.41, 4.05, None, None),
    "stft_distance": (0, 1.31, 4.06, 3.74, None, None),
    "si_sdr": (148, 7.9, 5.4, 20.0, None, None),
}


def conditions(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the metrics by condition.

    Raises:
        ConfigError: the result lacks one.
    """
    anchors = result["anchors"]
    opus = {one["setting"]: one["metrics"] for one in result["baselines"].get("opus", [])}
    found = {
        "clean": anchors.get("identity"),
        "opus12": opus.get(12),
        "opus6": opus.get(6),
        "noise20": anchors.get("noise_20db"),
        "4 bit": anchors.get("four_bit"),
        "lp 2k": anchors.get("low_pass_2k"),
    }
    missing = [name for name, metrics in found.items() if metrics is None]
    if missing:
        raise ConfigError(
            f"rank_speech_metrics: expected a result with {', '.join(CONDITIONS)}; got none of "
            f"{', '.join(missing)}. Run eval/speech_codecs.py with protocol speech_16k."
        )
    return {name: metrics for name, metrics in found.items() if metrics is not None}


def verdicts(values: Mapping[str, float | None], *, higher: bool) -> dict[str, bool | None]:
    """Return, per ladder, whether every step down is a step down; None where values are missing."""
    found: dict[str, bool | None] = {}
    for name, steps in LADDERS.items():
        column = [values[step] for step in steps]
        known = [one for one in column if one is not None]
        falls = all((a > b) if higher else (a < b) for a, b in pairwise(known))
        found[name] = falls if len(known) == len(column) else None
    return found


def table(result: Mapping[str, Any]) -> str:
    """Return the values, the verdicts and the earlier values as Markdown."""
    found = conditions(result)
    lines = [
        "| metric | better | " + " | ".join(CONDITIONS) + " | codec | noise | band |",
        "|---|---|" + "---:|" * len(CONDITIONS) + "---|---|---|",
    ]
    for name, score in found["clean"].items():
        values = {one: found[one].get(name, {}).get("value") for one in CONDITIONS}
        if score["higher_is_better"] is None or values["clean"] is None:
            continue
        higher = score["higher_is_better"]
        marks = verdicts(values, higher=higher)
        shown = " | ".join(results.number(values[one]) for one in CONDITIONS)
        words = " | ".join(
            {True: "ranks", False: "**no**", None: ""}[one] for one in marks.values()
        )
        lines.append(f"| {name} | {'more' if higher else 'less'} | {shown} | {words} |")
        if name in EARLIER:
            earlier = " | ".join(results.number(one) for one in EARLIER[name])
            lines.append(f"| _{name}, earlier_ | | {earlier} | | | |")
    return "\n".join(lines)


def cost_table(result: Mapping[str, Any]) -> str:
    """Return what each metric costs as Markdown."""
    cost = result["metric_cost"]["cpu_seconds_per_second"]
    rows = sorted(cost.items(), key=lambda item: item[1])
    lines = ["| metric | CPU s per second of sound |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {value:.4f} |" for name, value in rows)])


def main(argv: list[str] | None = None) -> int:
    """Print the tables and write them beside the result as ``ranking.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a result.json")
    options = parser.parse_args(argv)
    try:
        result = results.read_result(options.folder / "result.json")
        text = "\n\n".join([table(result), cost_table(result), results.footnote(result)])
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    write_atomically(options.folder / "ranking.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
