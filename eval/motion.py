r"""A motion tokenizer beside the mean pose of its training set, on motion it was not trained on.

python eval/motion.py outputs/<run>/tokenizer --data <folder> --only "*012314_vec*" \
    -o eval/results/<name>/motion

Per motion and the mean over motions, for every number of codebooks, in millimetres: MPJPE against
the root (the papers' number), in the world, after laying each frame's body on the real one; the
root's own error; acceleration; the share of frames in which a foot on the ground slides. Beside it
the mean pose: the mean features of the training set, which the tokenizer carries, once with the
mean path and once on the real path of the root.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

import tokenizers_vq
from tokenizers_vq.data.motion import MotionFolder
from tokenizers_vq.errors import ConfigError, DataError
from tokenizers_vq.evaluation.item_table import data_of, finish, note_of, options
from tokenizers_vq.functional.motion import FRAME_RATE, PARENTS, joints_from_features
from tokenizers_vq.metrics.joints import acceleration_error, foot_skate, mpjpe, root_error

COLUMNS = {
    "bits_per_second": ("bits / s", 1), "mpjpe": ("MPJPE, root mm", 1),
    "world": ("in the world mm", 1), "rigid": ("body alone mm", 1), "root": ("root mm", 1),
    "acceleration": ("acceleration mm/frame²", 1), "skate": ("foot slides", 3),
}  # fmt: skip


def row(real: Tensor, fake: Tensor, bits: float | None) -> dict:
    """Return the numbers of one motion; both are features ``(263, T)``."""
    a, b = (joints_from_features(x.T[None].double()) for x in (real, fake))
    return {
        "bits_per_second": bits,
        "mpjpe": float(mpjpe(a, b)),
        "world": float(mpjpe(a, b, "none")),
        "rigid": float(mpjpe(a, b, "rigid")),
        "root": float(root_error(a, b)),
        "acceleration": float(acceleration_error(a, b)),
        "skate": float(foot_skate(b)),
    }


@torch.no_grad()
def reconstructions(tok: tokenizers_vq.Tokenizer, x: Tensor) -> dict[str, tuple[Tensor, float]]:
    """Return what each number of codebooks, and no tokens, make of features ``(263, T)``."""
    codes = tok.encode(x[None])
    seconds = x.shape[1] / FRAME_RATE
    found = {}
    for k in range(codes.indices.shape[-1], 0, -1):
        part = tok.encode(x[None], num_codebooks=k) if k < codes.indices.shape[-1] else codes
        found[f"{k} codebooks" if k > 1 else "1 codebook"] = (
            tok.decode(codes, k if len(codes.codebook_sizes) > 1 else None)[0],
            part.bits / seconds,
        )
    mean = tok.encoder.standardize.mean[:, None].expand_as(x).clone()
    found["mean pose, mean path"] = (mean, None)
    on_path = mean.clone()
    on_path[:4] = x[:4]
    found["mean pose, real path"] = (on_path, None)
    found["the motion itself"] = (x, None)
    return found


def picture(path: Path, pairs: list[tuple[str, Tensor, Tensor]], count: int = 6) -> None:
    """Draw figures of each motion, the real one grey, every few frames side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(pairs), 1, figsize=(10, 2.6 * len(pairs)), squeeze=False)
    for axis, (name, real, fake) in zip(axes[:, 0], pairs, strict=True):
        both = [joints_from_features(x.T.double()) for x in (real, fake)]
        frames = torch.linspace(0, len(both[0]) - 1, count).long().tolist()
        for at, frame in enumerate(frames):
            for joints, colour, width in zip(both, ("0.7", "C3"), (3.5, 1.5), strict=True):
                pose = joints[frame] - joints[frame, :1] * joints.new_tensor([1, 0, 1])
                for joint in range(1, 22):
                    ends = pose[[joint, PARENTS[joint]]]
                    # seen from the side and a little from the front
                    across = ends[:, 2] * 0.8 + ends[:, 0] * 0.6 + 1.3 * at
                    axis.plot(across, ends[:, 1], color=colour, lw=width, solid_capstyle="round")
        axis.set_title(f"{name}: real (grey) and from all its tokens (red)", fontsize=9)
        axis.set_aspect("equal")
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write it with every row and a picture."""
    given = options(__doc__, "synthetic_motion").parse_args(argv)
    try:
        tok = tokenizers_vq.load(given.tokenizer)
        dataset, name = data_of(given, lambda root, only: MotionFolder(root, None, only=only))
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    made = {id_: reconstructions(tok, x) for id_, x in zip(dataset.ids, dataset, strict=True)}
    rows = [
        {key: row(found["the motion itself"][0], fake, bits) for key, (fake, bits) in found.items()}
        for found in made.values()
    ]
    note = note_of(tok, dataset, name) | {"frames": [x.shape[1] for x in dataset]}
    amount = f"{len(dataset)} motions of {sum(note['frames'])} frames"
    finish(given, "motions", note, rows, COLUMNS, amount)
    if given.o is not None:
        pairs = [
            (id_, found["the motion itself"][0], next(iter(found.values()))[0])
            for id_, found in list(made.items())[:3]
        ]
        picture(given.o / "motions.png", pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
