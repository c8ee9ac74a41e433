"""Draw the picture of the README: held-out photos, their reconstructions, JPEG at equal bytes.

python eval/readme_picture.py outputs/eval/<tokenizer>/image_fast docs/images/reconstructions.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tokenizers_vq.evaluation.report import Sample, load_samples
from tokenizers_vq.viz import side_by_side


def row(sample: Sample) -> np.ndarray:
    """Return one photo as ``(H, W, 3)``: original, tokens, JPEG, with bytes and PSNR above."""
    jpeg = sample.scores["jpeg"]
    pictures = {
        f"{sample.id}, {sample.original.nbytes:,} bytes raw": sample.original,
        f"tokens: {sample.scores['n_bytes']:,.0f} bytes, {sample.scores['psnr']:.1f} dB": (
            sample.reconstruction
        ),
        f"JPEG: {jpeg['n_bytes']:,} bytes, {jpeg['psnr']:.1f} dB": sample.codecs["jpeg"],
    }
    return np.asarray(side_by_side(pictures))


def main(folder: Path, out: Path) -> None:
    """Write the picture of the evaluation in ``folder`` to ``out``."""
    rows = [row(sample) for sample in load_samples(folder)]
    half = (len(rows) + 1) // 2
    columns = [np.concatenate(rows[:half]), np.concatenate(rows[half:])]
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = side_by_side(columns, gap=24)
    sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"readme_picture: expected a folder and a file; got {sys.argv[1:]}.")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
