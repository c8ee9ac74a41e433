"""A video tokenizer beside what needs no learning, and beside x264 and SVT-AV1 at its bytes.

python eval/video.py outputs/<run>/tokenizer --data synthetic_video -o eval/results/<name>/video

Per clip and the mean over clips: PSNR of all frames and of all but the first (which a repeated
first frame has for nothing, at 99 dB), SSIM per frame, PSNR of the changes between frames, bytes of
the tokens (fixed width, or coded by the tokenizer's prior), and the same of the first frame
repeated, the clip's mean colour, and codecs with as many bytes. A codec whose smallest stream is
larger than the tokens is counted as over.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tokenizers_vq
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import dataset_from
from tokenizers_vq.evaluation.video_codecs import CODECS, code_video
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.video import change_psnr, frame_psnr, frame_ssim

SCORES = ("psnr", "later_psnr", "ssim", "change_psnr")


def row(real: Tensor, fake: Tensor, n_bytes: int | None, over: bool = False) -> dict:
    """Return the numbers of one clip ``(3, T, H, W)`` uint8."""
    pair = (real[None], fake[None])
    frames = frame_psnr(*pair)
    return {
        "psnr": float(frames.mean()),
        "later_psnr": float(frames[:, 1:].mean()),
        "ssim": float(frame_ssim(*pair).mean()),
        "change_psnr": float(change_psnr(*pair)),
        "n_bytes": n_bytes,
        "over": over,
    }


@torch.no_grad()
def measure(tok: tokenizers_vq.Tokenizer, clip: Tensor, codecs: list[str]) -> dict[str, dict]:
    """Return the rows of one clip ``(3, T, H, W)`` in [-1, 1], by name."""
    real = to_uint8(clip)
    codes = tok.encode(clip[None])
    budget = len(tokenizers_vq.bitstream.to_bytes(codes, tok.prior))
    found = {"tokens": row(real, to_uint8(tok.decode(codes)[0]), budget)}
    found["first frame repeated"] = row(real, real[:, :1].expand_as(real), None)
    mean = clip.mean((1, 2, 3), keepdim=True).expand_as(clip)
    found["mean colour"] = row(real, to_uint8(mean), None)
    for name in codecs:
        coded = code_video(real.permute(1, 2, 3, 0).numpy(), name, budget)
        back = torch.from_numpy(np.ascontiguousarray(coded.video.transpose(3, 0, 1, 2)))
        found[name] = row(real, back, coded.n_bytes, not coded.fits)
    return found


def table(rows: list[dict[str, dict]]) -> str:
    """Return the means over clips as Markdown."""
    lines = ["| | bytes | over | PSNR dB | later frames | SSIM | PSNR of changes dB |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name in rows[0]:
        clips = [one[name] for one in rows]
        sizes = [clip["n_bytes"] for clip in clips if clip["n_bytes"] is not None]
        size = f"{statistics.fmean(sizes):,.0f}" if sizes else ""
        a, b, c, d = (statistics.fmean(clip[key] for clip in clips) for key in SCORES)
        over = sum(clip["over"] for clip in clips) or ""
        lines.append(f"| {name} | {size} | {over} | {a:.2f} | {b:.2f} | {c:.3f} | {d:.2f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write it with every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", help="name or folder")
    parser.add_argument("--data", default="synthetic_video", help="a name in conf/data")
    parser.add_argument("--limit", type=int, default=None, help="clips")
    parser.add_argument("--codecs", nargs="*", default=list(CODECS))
    parser.add_argument("-o", type=Path, default=None, help="folder for clips.json and table.md")
    parser.add_argument("--about", default="", help="a sentence printed with the table")
    given = parser.parse_args(argv)
    try:
        tok = tokenizers_vq.load(given.tokenizer)
        dataset, name = dataset_from(given.data)
        count = len(dataset.ids) if given.limit is None else given.limit
        rows = [measure(tok, dataset[index], given.codecs) for index in range(count)]
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    note = {"tokenizer": tok.model_id, "data": name, "sha256": dataset.sha256(), "n": count}
    note |= {"shape": list(dataset[0].shape), "environment": results.environment("cpu")}
    about = (
        f"{tok.model_id}, {name}, {count} clips of {note['shape']}, data {note['sha256'][:12]}, "
        f"commit {str(note['environment'].get('commit'))[:10]}. {given.about}"
    )
    page = f"{table(rows)}\n\n{about.strip()}\n"
    print(page)
    if given.o is not None:
        results.write_json(given.o / "clips.json", {**note, "about": given.about, "rows": rows})
        write_atomically(given.o / "table.md", page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
