"""Put face photographs into larger pictures: small and medium faces in TokBench's layout.

python eval/smaller_faces.py face_dev/face_meta.json --limit 30 -o outputs/smaller_faces

A photograph keeps its pixels. It lies on a blurred and enlarged copy of itself, whose long side it
fills by the share; where, is drawn. On a canvas of fixed size the face is smaller by the share.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tokenizers_vq.data.decode import read_rgb
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation import results
from tokenizers_vq.files import write_atomically
from tokenizers_vq.tokbench.layout import read_faces


def placed(photo: Image.Image, share: float, generator: np.random.Generator):
    """Return the larger picture, and left and top of the photograph in it."""
    if share == 1:
        return photo, (0, 0)
    side = round(max(photo.size) / share)
    ground = photo.resize((side, side), Image.Resampling.BICUBIC)
    ground = ground.filter(ImageFilter.GaussianBlur(side / 16))
    corner = tuple(int(generator.integers(0, side - n + 1)) for n in photo.size)
    ground.paste(photo, corner)
    return ground, corner


def moved(face: dict, corner: tuple[int, int], scale: float) -> dict:
    """Return a face with its box and points shifted, and its ratio smaller by ``scale``."""
    x, y = corner
    found = {**face, "ratio": face["ratio"] * scale}
    if "box" in face:
        found["box"] = [v + (x, y)[k % 2] for k, v in enumerate(face["box"])]
    for key in {"kps", "kps5"} & face.keys():
        found[key] = [[px + x, py + y] for px, py in face[key]]
    return found


def smaller(entry: dict, root: Path, share: float, seed: int, out: Path) -> dict:
    """Write the larger picture of one entry; return its annotation."""
    name = entry["image_name"]
    generator = np.random.default_rng([seed, round(1000 * share), *name.encode()])
    photo = read_rgb(root / name)
    picture, corner = placed(photo, share, generator)
    scale = max(photo.size) / max(picture.size)
    file = f"{share:.2f}/{Path(name).with_suffix('').as_posix().replace('/', '_')}.png"
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomically(out / file, buffer.getvalue())
    width, height = picture.size
    return {
        "image_name": file, "img_height": height, "img_width": width,
        "faces": [moved(face, corner, scale) for face in entry["faces"]],
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Write the pictures and ``face_meta.json``; exit code 2 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", type=Path, help="TokBench's face annotation, of pictures")
    parser.add_argument("--shares", type=float, nargs="+", default=[1, 0.5, 0.3])
    parser.add_argument(
        "--limit", type=int, default=None, help="photographs, the first of the file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of where a photograph lies")
    parser.add_argument("-o", "--out", type=Path, default=Path("outputs/smaller_faces"))
    options = parser.parse_args(argv)
    try:
        if not all(0 < share <= 1 for share in options.shares):
            raise ConfigError(
                f"smaller_faces: expected shares above 0, up to 1; got {options.shares}."
            )
        if any(face.frame is not None for face in read_faces(options.faces)):
            raise DataError("smaller_faces: expected faces of pictures; got those of videos.")
        entries = json.loads(options.faces.read_text(encoding="utf-8"))[: options.limit]
        found = [
            smaller(entry, options.faces.parent, share, options.seed, options.out)
            for share in options.shares
            for entry in entries
        ]
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    results.write_json(options.out / "face_meta.json", found)
    print(f"{len(found)} pictures, {options.out / 'face_meta.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
