import struct

import numpy as np
import pytest
from PIL import Image

from tokenizers_vq.data.decode import read_rgb, try_open, try_read_rgb
from tokenizers_vq.errors import DataError

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def pixel(path, xy=(0, 0)):
    image = read_rgb(path)
    assert image.mode == "RGB"
    return image.getpixel(xy)


def save(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("RGB", RED, "a.png", RED),
        ("L", 77, "a.png", (77, 77, 77)),
        ("1", 1, "a.png", WHITE),
        ("CMYK", (0, 255, 255, 0), "a.tif", RED),
        ("RGBA", (255, 0, 0, 255), "a.png", RED),
        ("RGBA", (255, 0, 0, 0), "a.png", WHITE),
        ("RGBA", (0, 0, 0, 128), "a.png", (127, 127, 127)),
        ("LA", (0, 0), "a.png", WHITE),
        ("LA", (9, 255), "a.png", (9, 9, 9)),
        ("I;16", 65535, "a.png", WHITE),
        ("I;16", 257 * 100 + 128, "a.png", (100, 100, 100)),
        ("I;16", 257 * 100 + 129, "a.png", (101, 101, 101)),
        ("I;16", 257 * 77, "a.tif", (77, 77, 77)),
        ("I", 257 * 77, "a.tif", (77, 77, 77)),
        ("F", 0.5, "a.tif", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, name, expected):
    assert pixel(save(tmp_path, Image.new(mode, (4, 3), colour), name)) == expected


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    path = save(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg", quality=95)
    assert np.abs(np.subtract(pixel(path), RED)).max() <= 3


def test_palettes_are_looked_up_and_transparent_entries_are_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    plain = save(tmp_path, image, "plain.png")
    assert (pixel(plain), pixel(plain, (1, 0))) == (RED, GREEN)
    clear = save(tmp_path, image, "clear.png", transparency=0)
    assert (pixel(clear), pixel(clear, (1, 0))) == (WHITE, GREEN)
    soft = save(tmp_path, image, "soft.png", transparency=bytes([0, 255]))
    assert (pixel(soft), pixel(soft, (1, 0))) == (WHITE, GREEN)


def test_transparent_colour_of_an_rgb_png_is_white(tmp_path):
    path = save(tmp_path, Image.new("RGB", (2, 2), RED), "a.png", transparency=RED)
    assert pixel(path) == WHITE


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if name.endswith("webp") else {}
    path = save(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **options)
    assert pixel(path) == RED


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), GREEN)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = save(tmp_path, image, "a.png", exif=exif)
    assert read_rgb(path).size == (1, 2)
    assert (pixel(path), pixel(path, (0, 1))) == (RED, GREEN)


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    path = save(tmp_path, Image.new("RGB", (8, 8), WHITE), "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff")
    assert read_rgb(path).size == (8, 8)


def test_broken_files_say_what_is_wrong(tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("a.jpg", "a.png", "a.webp", "a.bmp"):
        whole = save(tmp_path, noise, name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert isinstance(try_read_rgb(tmp_path / name), str), name
    assert try_read_rgb(tmp_path / "a.bmp") == "truncated"
    assert try_open(tmp_path / "a.bmp") is None  # its header is whole
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture at all")
    assert try_read_rgb(tmp_path / "empty.png") == "an empty file"
    assert try_read_rgb(tmp_path / "text.png") == "not a picture"
    assert try_read_rgb(tmp_path / "none.png") == "no such file"
    assert try_open(tmp_path / "text.png") == "not a picture"
    image = Image.fromarray(np.full((2, 2), 1e6, dtype=np.float32))
    big = save(tmp_path, image, "big.tif")
    assert try_read_rgb(big) == ("broken (ValueError: samples 1e+06 to 1e+06 are outside 0 to 1)")
    with pytest.raises(DataError) as error:
        read_rgb(tmp_path / "empty.png")
    assert str(error.value) == (
        f"read_rgb: expected a picture in '{tmp_path / 'empty.png'}'; got an empty file."
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = save(tmp_path, noise, "bomb.png")
    assert try_read_rgb(path) == "more than 2,000 pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    assert read_rgb(path).size == (64, 64)  # only a warning, which would be an error in this suite


def test_a_png_that_promises_a_huge_size_is_only_a_reason(tmp_path):
    path = save(tmp_path, Image.new("RGB", (8, 8)), "a.png")
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 2**30, 2**30)
    path.write_bytes(content)
    assert isinstance(try_read_rgb(path), str)


def test_random_damage_never_raises(tmp_path):
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    path = tmp_path / "damaged"
    for name in ("a.jpg", "a.png", "a.gif", "a.bmp", "a.webp", "a.ppm", "a.tga"):
        whole = save(tmp_path, noise, name).read_bytes()
        for _ in range(25):
            content = bytearray(whole)
            for place in generator.integers(0, min(len(content), 400), 4):
                content[place] = generator.integers(256)
            path.write_bytes(content)
            assert isinstance(try_read_rgb(path), str | Image.Image)
