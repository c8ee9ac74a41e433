"""Does every text and face metric rank clean > JPEG q50 > JPEG q10 > quarter size? A table.

python eval/rank_text_and_faces.py --words text_rendered/scenes.json --faces face_dev/face_meta.json

The files are in TokBench's layout; n of every bucket stands in the heading.
"""

import argparse
import io
import sys
from itertools import pairwise
from pathlib import Path

from PIL import Image

from tokenizers_vq.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.tokbench.models import PPOCR, Dlib
from tokenizers_vq.tokbench.report import footnote, report, table, write_report
from tokenizers_vq.tokbench.run import measured, options_of


def jpeg(quality: int):
    """Return a JPEG round trip."""

    def change(canvas: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        canvas.save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as opened:
            return opened.convert("RGB")

    return change


def quarter(canvas: Image.Image) -> Image.Image:
    """Return the picture at a quarter of its side and back, by Lanczos."""
    small = canvas.resize([max(1, n // 4) for n in canvas.size], Image.Resampling.LANCZOS)
    return small.resize(canvas.size, Image.Resampling.LANCZOS)


CONDITIONS = {
    "clean": lambda canvas: canvas, "JPEG q50": jpeg(50), "JPEG q10": jpeg(10),
    "quarter size": quarter,
}  # fmt: skip


class Remembered:
    """A model that answers once for what it is asked again: the originals of every condition."""

    def __init__(self, model) -> None:
        self.model, self.name, self.known = model, model.name, {}
        self.packages, self.sha256 = model.packages, model.sha256

    def read(self, crops: list) -> list[str]:
        """Return what each crop says."""
        keys = [(crop.shape, crop.tobytes()) for crop in crops]
        new = {key: crop for key, crop in zip(keys, crops, strict=True) if key not in self.known}
        self.known |= zip(new, self.model.read(list(new.values())), strict=True)
        return [self.known[key] for key in keys]

    def embed(self, picture, points, order):
        """Return the vector of a face."""
        key = (points, picture.tobytes())
        if key not in self.known:
            self.known[key] = self.model.embed(picture, points, order)
        return self.known[key]


def ranked(part: dict) -> dict[str, bool]:
    """Say of every bucket that has anything whether it falls strictly in the conditions' order."""
    columns = {
        name: [scores[name]["value"] for scores in part["coders"].values()]
        for name, score in next(iter(part["coders"].values())).items()
        if score["n"] and not name.endswith(" mean")
    }
    # what is gone stays gone: equal at 0 is no disorder
    return {
        name: all(a > b or a == b == 0 for a, b in pairwise(column))
        for name, column in columns.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Print the tables; exit code 1 if a bucket is out of order, 2 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--images", type=Path, help="folder of the pictures; default: beside it")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--limit", type=int, default=None, help="pictures of each file")
    parser.add_argument("--out", type=Path, default=None, help="folder of the result")
    options = parser.parse_args(argv)
    environment = results.environment("cpu")
    models = (lambda: Remembered(PPOCR()), lambda: Remembered(Dlib()))
    try:
        parts = measured(options, CONDITIONS, *models)
    except (CheckpointError, ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    typed = f"python eval/rank_text_and_faces.py {options_of(options)}"
    found = report(parts, environment, typed)
    found["ranks"] = {name: good for part in parts for name, good in ranked(part).items()}
    for part in parts:
        print(f"{table(part)}\n\n{footnote(found, part)}\n")
    out_of_order = [name for name, good in found["ranks"].items() if not good]
    order = " > ".join(CONDITIONS)
    verdict = (
        f"{order} in {len(found['ranks']) - len(out_of_order)} of {len(found['ranks'])} buckets"
    )
    verdict += f"; not in: {', '.join(out_of_order)}." if out_of_order else "."
    print(verdict)
    if options.out:
        print(write_report(options.out, found, verdict))
    return int(bool(out_of_order))


if __name__ == "__main__":
    sys.exit(main())
