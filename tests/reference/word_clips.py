"""A clip with words drawn on its frames, a reader that knows them, and the annotations."""

import json

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (320, 192)
WORDS = ("Tokens", "Frames", "Pixels")
FONT = ImageFont.load_default(size=28)


def drawn(word, x=0, y=0, size=SIZE):
    """A frame that says one word, and the word's box."""
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((x, y), word, fill="black", font=FONT)
    return picture, [round(v) for v in draw.textbbox((x, y), word, font=FONT)]


def write_clip(path, pictures):
    """Write pictures as a video that is nearly without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt, stream.options = "yuv420p", {"qscale": "1"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_words(folder, frames=7):
    """``clip.mp4`` and ``words.json``: frame k says the word k modulo 3, further to the right."""
    pictures, entries = [], []
    for k in range(frames):
        word = WORDS[k % len(WORDS)]
        picture, box = drawn(word, 20 + 8 * k, 60)
        pictures.append(picture)
        ratio = max(box[2] - box[0], box[3] - box[1]) / len(word) / max(SIZE)
        entries.append({
            "video_name": "clip", "file_name": f"clip-frame{k + 1:03d}.jpg", "width": SIZE[0],
            "height": SIZE[1], "annotations": [{"rec": word, "bbox": box, "ratio": ratio}],
        })  # fmt: skip
    write_clip(folder / "clip.mp4", pictures)
    (folder / "words.json").write_text(json.dumps(entries))
    return folder / "words.json"


class Templates:
    """Reads a crop as the word whose drawing is most like it, if one is like it at all."""

    name = "templates"

    def read(self, crops):
        return [self.word(crop) for crop in crops]

    def word(self, crop):
        likeness = {word: self.likeness(crop, word) for word in WORDS}
        best = max(likeness, key=likeness.get)
        return best if likeness[best] > 0.8 else ""

    def likeness(self, crop, word):
        picture, box = drawn(word)
        known = picture.crop(box).resize(crop.shape[1::-1]).convert("L")
        a, b = (
            np.asarray(one, float).ravel() for one in (Image.fromarray(crop).convert("L"), known)
        )
        a, b = a - a.mean(), b - b.mean()
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))
