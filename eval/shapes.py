"""A shape tokenizer at real bytes, beside an ellipsoid, coded points and Draco with as many bytes.

python eval/shapes.py outputs/<run>/tokenizer --data synthetic_shapes -o eval/results/<name>/shapes

Per shape and the mean over shapes, in a box whose longest side is 2: Chamfer-L1 (sum of both
directions), F-score at 0.02 (1 % of the side) and at 0.05, IoU at even points, normal consistency.
Surfaces are sampled evenly, both anew for every comparison, by a generator seeded by (seed, shape).
"floor" compares two samplings of the original: no reconstruction can do better but by chance.
Bytes are those of whole .tok files, with header and checksum, and of whole Draco files. Each shape
gets the Draco file, of several with 5 to 8 bits per coordinate, with the best F-score at 0.05.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np

import tokenizers_vq
from tokenizers_vq import shapes
from tokenizers_vq.backbones.field import lattice
from tokenizers_vq.data.meshes import MeshFolder
from tokenizers_vq.data.synthetic_shapes import REACH
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.entry import dataset_from
from tokenizers_vq.evaluation.shape_codecs import (
    decode_points,
    draco,
    ellipsoid,
    ellipsoid_distances,
    encode_points,
)
from tokenizers_vq.files import write_atomically
from tokenizers_vq.functional.triangles import Mesh, sample_surface, winding_number
from tokenizers_vq.metrics.chamfer import chamfer_l1
from tokenizers_vq.metrics.f_score import f_score
from tokenizers_vq.metrics.iou import iou
from tokenizers_vq.metrics.normal_consistency import normal_consistency

SCORES = ("f_0.02", "f_0.05", "chamfer_l1", "iou", "normals")


class Judge:
    """Compares shapes with one original, always in the same way."""

    def __init__(self, mesh, inside, count, seed):
        self.mesh, self.count = mesh, count
        self.generator = np.random.default_rng(seed)
        self.even = self.generator.uniform(-REACH, REACH, (count, 3))
        self.inside = inside(self.even)

    def surface(self, mesh):
        """Return samples of a mesh ``(N, 3)`` in a box whose longest side is 2, and normals."""
        points, normals, _ = sample_surface(mesh, self.count, self.generator)
        return points / REACH, normals

    def row(self, shape, inside=None, n_bytes=None):
        """Return the numbers of a mesh, or of points ``(N, 3)``."""
        if isinstance(shape, Mesh) and not len(shape.faces):  # nothing inside
            return {"n_bytes": n_bytes, **dict.fromkeys(SCORES, 0.0), "chamfer_l1": None}
        real, normals = self.surface(self.mesh)
        fake, others = self.surface(shape) if isinstance(shape, Mesh) else (shape / REACH, None)
        return {
            "n_bytes": n_bytes,
            "f_0.02": f_score(real, fake, 0.02),
            "f_0.05": f_score(real, fake, 0.05),
            "chamfer_l1": chamfer_l1(real, fake),
            "iou": None if inside is None else iou(self.inside, inside(self.even)),
            "normals": None if others is None else normal_consistency(real, fake, normals, others),
        }


def original(dataset, index, side):
    """Return mesh ``index``, and what says of points whether they are inside."""
    if isinstance(dataset, MeshFolder):
        mesh = dataset.mesh(index)
        return mesh, lambda points: winding_number(mesh, points) > 0.5
    solid = dataset.solid(index)
    distances = solid.distance(lattice(side).T.numpy().astype(float))
    return shapes.marched(distances.reshape(side, side, side)), lambda p: solid.distance(p) < 0


def ours(tok, mesh, judge, budgets, side):
    """Yield name, shape and numbers of the tokenizer at every number of bytes."""
    codes = shapes.encode_mesh(tok, mesh)
    for budget in budgets:
        found = shapes.at_most(tok, codes, budget)
        if found is not None:
            field = shapes.field_of(tok, found[0])
            made = field.mesh(side)
            row = judge.row(made, lambda p, f=field: f.query(p) < 0, len(found[1]))
            yield f"tokens {budget}", made, row


def others(mesh, judge, budgets, with_draco):
    """Yield name, shape and numbers of what needs no learning."""
    points, _, _ = sample_surface(mesh, 2048, np.random.default_rng(1))
    centre, axes, size = ellipsoid(points)
    places = lattice(48).T.numpy().astype(float)
    ball = shapes.marched(ellipsoid_distances(centre, axes, places).reshape(48, 48, 48))
    row = judge.row(ball, lambda p: ellipsoid_distances(centre, axes, p) < 0, size)
    yield "ellipsoid", ball, row
    for budget in budgets:
        data = encode_points(points, budget)
        cloud = decode_points(data)
        if len(cloud):
            yield f"points {budget}", cloud, judge.row(cloud, None, len(data))
        rows = [
            (made, judge.row(made, lambda p, m=made: winding_number(m, p) > 0.5, n))
            for made, n in (draco(mesh, budget) if with_draco else ())
        ]
        if rows:
            best = max(rows, key=lambda row: row[1]["f_0.05"])
            yield f"draco {budget}", *best


def table(rows):
    """Return the means over shapes as Markdown; of those that have the number."""
    lines = ["| | shapes | bytes | F 0.02 | F 0.05 | Chamfer-L1 | IoU | normals |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in dict.fromkeys(name for row in rows for name in row):
        found = [row[name] for row in rows if name in row]
        texts = []
        for key, digits in (("n_bytes", 0), *((score, 3) for score in SCORES)):
            values = [one[key] for one in found if one[key] is not None]
            texts.append(f"{statistics.fmean(values):,.{digits}f}" if values else "")
        lines.append(f"| {name} | {len(found)} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def measure(tok, dataset, index, given):
    """Return the rows of one shape by name, and its row of pictures."""
    mesh, inside = original(dataset, index, given.original_side)
    judge = Judge(mesh, inside, given.points, (given.seed, index))
    row, pictures = {"floor": judge.row(mesh, inside)}, [("original", mesh)]
    made = [
        *ours(tok, mesh, judge, given.budgets, given.side),
        *others(mesh, judge, given.budgets, given.draco),
    ]
    for name, shape, numbers in made:
        row[name] = numbers
        if name.startswith("tokens") or name == "draco 256":
            pictures.append((f"{name}, F {numbers['f_0.05']:.2f}", shape))
    return row, pictures


def options():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("tokenizer", help="name or folder")
    add("--data", default="synthetic_shapes", help="a name in conf/data, or a folder of meshes")
    add("--limit", type=int, default=None, help="shapes")
    add("--budgets", type=int, nargs="+", default=[64, 256, 512, 1024], help="bytes")
    add("--points", type=int, default=10_000, help="samples of every surface")
    add("--side", type=int, default=48, help="nodes per axis for a decoded surface")
    add("--original-side", type=int, default=80, help="the same for generated originals")
    add("--max-faces", type=int, default=20_000, help="of meshes in a folder")
    add("--no-draco", dest="draco", action="store_false")
    add("--pictures", type=int, default=6, help="shapes in the picture")
    add("--seed", type=int, default=0)
    add("-o", type=Path, default=None, help="folder for shapes.json, table.md and shapes.png")
    add("--about", default="", help="a sentence printed with the table")
    return parser


def main(argv=None):
    """Measure, print the table, write it with every row and a picture."""
    given = options().parse_args(argv)
    rows, pictures, environment = {}, [], results.environment("cpu")
    try:
        tok = tokenizers_vq.load(given.tokenizer)
        if Path(given.data).is_dir():
            dataset, name = MeshFolder(given.data, max_faces=given.max_faces), Path(given.data).name
        else:
            dataset, name = dataset_from(given.data)
        for index in range(len(dataset.ids) if given.limit is None else given.limit):
            id_ = dataset.ids[index]
            rows[id_], found = measure(tok, dataset, index, given)
            if len(pictures) < given.pictures:
                pictures.append([(id_, found[0][1]), *found[1:]])
            print(id_, {k: round(v["f_0.05"], 3) for k, v in rows[id_].items()}, file=sys.stderr)
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    names = ("budgets", "points", "side", "original_side", "max_faces", "seed")
    protocol = {name: getattr(given, name) for name in names}
    note = {"tokenizer": tok.model_id, "data": name, "sha256": dataset.sha256(), "n": len(rows)}
    note |= {"skipped": dataset.skipped, "protocol": protocol}
    note |= {"environment": environment, "about": given.about}
    about = (
        f"{tok.model_id}, {name}, {len(rows)} shapes, data {note['sha256'][:12]}, "
        f"{len(dataset.skipped)} files left out, {given.points} points per surface, seed "
        f"{given.seed}, commit {str(environment.get('commit'))[:10]}. {given.about}"
    )
    page = f"{table(list(rows.values()))}\n\n{about.strip()}\n"
    print(page)
    if given.o is not None:
        write_atomically(given.o / "table.md", page)
        shapes.save_meshes(given.o / "shapes.png", pictures)
        results.write_json(given.o / "shapes.json", {**note, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
