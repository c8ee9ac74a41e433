import numpy as np
from PIL import Image

from tokenizers_vq.tokbench.geometry import place, restore, through


def picture(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_picture_whose_long_side_is_the_canvas_comes_back_exactly():
    for size in ((256, 144), (100, 256), (256, 256)):
        one = picture(*size)
        assert np.array_equal(through(one, 256, lambda canvas: canvas), np.asarray(one))


def test_1280_by_720_lies_in_rows_56_to_199():
    canvas, box = place(picture(1280, 720), 256)
    assert canvas.size == (256, 256)
    assert box == (0, 56, 256, 200)
    pixels = np.asarray(canvas)
    assert pixels[:56].max() == pixels[200:].max() == 0
    assert pixels[56:200].mean() > 50
    assert restore(canvas, box, (1280, 720)).size == (1280, 720)


def test_the_short_side_is_rounded_up():
    assert place(picture(300, 101), 256)[1] == (0, 84, 256, 171)  # 86.19 -> 87 rows


def test_what_is_outside_the_picture_does_not_come_back():
    def white_border(canvas):
        pixels = np.asarray(canvas).copy()
        pixels[:50] = 255
        return Image.fromarray(pixels)

    black = Image.new("RGB", (256, 144))
    assert through(black, 256, white_border).max() == 0
