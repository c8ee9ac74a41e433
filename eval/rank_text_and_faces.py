"""Does every text and face metric rank clean > JPEG q50 > JPEG q10 > quarter size? A table.

python eval/rank_text_and_faces.py --words text_rendered/scenes.json --faces face_dev/face_meta.json

The files are in TokBench's layout; n of every bucket stands in the heading.
"""

import argparse
import io
import json
import sys
from itertools import pairwise
from pathlib import Path

from PIL import Image

from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.tokbench.layout import read_faces, read_words
from tokenizers_vq.tokbench.models import PPOCR, Dlib
from tokenizers_vq.tokbench.run import score_faces, score_text, table
from tokenizers_vq.tokbench.scoring import NAMES


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


def ranked(scores: dict, metric: str) -> bool:
    """Say whether every bucket that has anything falls strictly in the order of the conditions."""
    tables = [found[metric] for found in scores.values()]
    columns = [[table[name]["value"] for table in tables] for name in NAMES if tables[0][name]["n"]]
    # what is gone stays gone: equal at 0 is no disorder
    return all(a > b or a == b == 0 for column in columns for a, b in pairwise(column))


def first_pictures(items: list, limit: int | None) -> list:
    """Return what is annotated in the first pictures."""
    kept = sorted({one.file for one in items})[:limit]
    return [one for one in items if one.file in set(kept)]


def main(argv: list[str] | None = None) -> int:
    """Print the tables; exit code 1 if a metric does not rank, 2 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--limit", type=int, default=None, help="pictures of each file")
    parser.add_argument("--out", type=Path, default=None, help="JSON of the scores")
    options = parser.parse_args(argv)
    parts = []
    try:
        if options.words:
            words = first_pictures(read_words(options.words), options.limit)
            parts.append((score_text, words, options.words.parent, Remembered(PPOCR())))
        if options.faces:
            faces = first_pictures(read_faces(options.faces), options.limit)
            parts.append((score_faces, faces, options.faces.parent, Remembered(Dlib())))
        scores = [
            {
                name: score(items, images, change, options.side, model)
                for name, change in CONDITIONS.items()
            }
            for score, items, images, model in parts
        ]
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    verdicts = {
        metric: ranked(found, metric)
        for found in scores
        for metric in next(iter(found.values()))
        if metric != "words"
    }
    for found in scores:
        print(table(found) + "\n")
    for metric, good in verdicts.items():
        print(f"{metric}: {' > '.join(CONDITIONS) if good else 'does not rank'}")
    if options.out:
        data = {
            "schema": 1, "kind": "ranking", "side": options.side, "buckets": list(NAMES),
            "scores": scores, "ranks": verdicts, "environment": results.environment("cpu"),
        }  # fmt: skip
        results.write_json(options.out, json.loads(json.dumps(data)))
    return int(not all(verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
