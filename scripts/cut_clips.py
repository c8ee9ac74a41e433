"""Cut short clips of small frames out of videos, without loss.

python scripts/cut_clips.py FOLDER -o OUT --size 64 --frames 17 --per-file 4 --only 'bikes*' 'fire*'

Every clip is a file ``<video>_<n>.mkv`` (FFV1, RGB) with the middle squares of consecutive frames;
the clips of a video are spread evenly over it. Reading them back gives the same pixels, and costs a
small part of decoding the video each time.
"""

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from tokenizers_vq.data.transforms import eval_view
from tokenizers_vq.data.video import SUFFIXES, header, read_frames


def write_clip(path: Path, pictures: list) -> None:
    """Write RGB pictures of one size as a lossless video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut(path: Path, out: Path, size: int, frames: int, count: int) -> int:
    """Write the clips of one video; return how many there were."""
    about = header(path)
    if isinstance(about, str):
        print(f"{path.name}: {about}", file=sys.stderr)
        return 0
    spare = max(about.seconds - frames / about.frame_rate, 0.0)
    written = 0
    for n in range(count):
        pictures = read_frames(path, spare * (n + 0.5) / count, frames)
        if isinstance(pictures, str):
            print(f"{path.name}, clip {n}: {pictures}", file=sys.stderr)
            continue
        write_clip(out / f"{path.stem}_{n}.mkv", [eval_view(one, size) for one in pictures])
        written += 1
    return written


def main(argv: list[str] | None = None) -> int:
    """Cut every video of a folder and say how many clips came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64, help="side of the squares in pixels")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--per-file", type=int, default=4)
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of names")
    parser.add_argument("--exclude", nargs="+", default=[], help="patterns of names")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    total = 0
    for path in sorted(given.folder.iterdir()):
        wanted = any(fnmatch(path.name, one) for one in given.only)
        left_out = any(fnmatch(path.name, one) for one in given.exclude)
        if path.suffix.lower() in SUFFIXES and wanted and not left_out:
            total += cut(path, given.out, given.size, given.frames, given.per_file)
    print(f"{total} clips in {given.out}")
    return 0 if total else 1


if __name__ == "__main__":
    sys.exit(main())
