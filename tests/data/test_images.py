import logging
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tokenizers_vq.data.images import ImageFolder
from tokenizers_vq.data.resumable import ResumableLoader
from tokenizers_vq.errors import ConfigError, DataError


def picture(seed, width=48, height=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(seed, size=(64, 48)):
    return picture(seed, 7, 5).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Five good files of five kinds, five bad ones, and things that are no pictures."""
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / ".thumbs").mkdir()
    picture(0).save(tmp_path / "a.jpg")
    picture(1).convert("CMYK").save(tmp_path / "b.jpg")
    picture(2).convert("P").save(tmp_path / "sub" / "c.png", transparency=0)
    picture(3, 1, 1).save(tmp_path / "sub" / "deep" / "one.PNG")
    Image.new("I;16", (30, 30), 30000).save(tmp_path / "z.png")
    picture(4).save(tmp_path / ".thumbs" / "t.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    picture(5).save(tmp_path / "cut.bmp")
    content = (tmp_path / "cut.bmp").read_bytes()
    (tmp_path / "cut.bmp").write_bytes(content[: len(content) // 2])
    return tmp_path


GOOD = ["a.jpg", "b.jpg", "sub/c.png", "sub/deep/one.PNG", "z.png"]
BAD = {
    "cut.bmp": "truncated",
    "empty.png": "an empty file",
    "gone.png": "no such file",
    "pipe.png": "not a file",
    "text.jpg": "not a picture",
}


@pytest.mark.parametrize("options", [{"cache": True, "train": True}, {}])
def test_bad_files_are_left_out_counted_and_named_once(folder, caplog, options):
    dataset = ImageFolder(folder, size=16, **options)
    assert dataset.ids == GOOD
    assert dataset.skipped == BAD
    assert len(caplog.records) == 1
    text = caplog.records[0].getMessage()
    assert text.startswith("ImageFolder: left out 5 of 10 files: cut.bmp: truncated; empty.png: ")
    for epoch in range(3):
        items = [dataset[epoch, i] for i in range(len(dataset))]
        assert {tuple(x.shape) for x in items} == {(3, 16, 16)}
        assert all(x.dtype == torch.float32 and x.is_contiguous() for x in items)
        assert all(x.min() >= -1 and x.max() <= 1 for x in items)
    assert len(caplog.records) == 1


def test_a_file_found_truncated_in_training_is_replaced_by_the_next(folder, caplog):
    dataset = ImageFolder(folder, size=16, train=True, augment={"flip": False})
    assert dataset.ids == sorted([*GOOD, "cut.bmp"])  # headers only: it looks whole
    caplog.clear()
    place = dataset.ids.index("cut.bmp")
    assert dataset.photo(place).tobytes() == dataset.photo(place + 1).tobytes()
    dataset[1, place]
    assert [r.getMessage() for r in caplog.records] == [
        "ImageFolder: from here on the next file stands in for cut.bmp: truncated"
    ]
    assert dataset.skipped == BAD


def test_loader_workers_name_a_broken_file_once_and_the_main_process_knows(folder, capfd):
    dataset = ImageFolder(folder, size=16, train=True)
    handler = logging.StreamHandler()
    logger = logging.getLogger("tokenizers_vq.data.photos")
    logger.addHandler(handler)
    try:
        loader = ResumableLoader(dataset, batch_size=3, num_workers=2)
        batches = [batch for _ in range(3) for batch in loader]
    finally:
        logger.removeHandler(handler)
    assert len(batches) == 6
    assert capfd.readouterr().err.count("stands in for cut.bmp") == 1
    assert dataset.skipped["cut.bmp"] == "truncated"


def test_files_deleted_during_the_run(folder, caplog):
    dataset = ImageFolder(folder, size=16, train=True)
    cached = ImageFolder(folder, size=16, cache=True)
    digest = cached.sha256()
    for name in GOOD[:2]:
        (folder / name).unlink()
    caplog.clear()
    assert [tuple(x.shape) for x in dataset] == [(3, 16, 16)] * 6
    assert dataset.skipped["a.jpg"] == "no such file"
    assert len(caplog.records) == 3  # a.jpg, b.jpg, cut.bmp
    assert len(list(cached)) == 5
    with pytest.raises(DataError, match=r"ImageFolder\.sha256: expected the file"):
        cached.sha256()
    assert len(digest) == 64
    for name in GOOD[2:]:
        (folder / name).unlink()
    with pytest.raises(DataError) as error:
        dataset[0]
    assert str(error.value) == (
        "ImageFolder: expected at least one readable picture; "
        "got 6 files, none of them readable any more. Is the disk still there?"
    )


def test_cached_and_uncached_items_are_the_same(folder):
    for name in ("cut.bmp", "empty.png", "text.jpg", "gone.png", "pipe.png"):
        (folder / name).unlink()
    plain = ImageFolder(folder, size=16, train=True, seed=3)
    cached = ImageFolder(folder, size=16, train=True, seed=3, cache=True)
    assert all(torch.equal(plain[2, i], cached[2, i]) for i in range(5))
    assert not torch.equal(plain[0, 0], plain[1, 0])
    assert not torch.equal(plain[0, 0], ImageFolder(folder, size=16, train=True, seed=4)[0, 0])


def test_data_hash_covers_names_and_bytes(tmp_path):
    picture(0).save(tmp_path / "a.png")
    first = ImageFolder(tmp_path).sha256()
    assert first == ImageFolder(tmp_path, size=8, train=True).sha256()
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    second = ImageFolder(tmp_path).sha256()
    picture(1).save(tmp_path / "b.png")
    assert len({first, second, ImageFolder(tmp_path).sha256()}) == 3


def test_whole_pictures_keep_their_size(tmp_path):
    picture(0, 31, 17).save(tmp_path / "a.png")
    item = ImageFolder(tmp_path)[0]
    assert item.shape == (3, 17, 31)
    assert torch.equal(item, ImageFolder(tmp_path, train=True, augment={"flip": False})[0])


def test_manifest_and_where(tmp_path):
    (tmp_path / "img").mkdir()
    for name in "abcd":
        picture(0).save(tmp_path / "img" / f"{name}.png")
    (tmp_path / "manifest.csv").write_text(
        "file,licence_class,year\nimg/b.png,open,2001\nimg/a.png,open,2002\n"
        "img/a.png,open,2002\nimg/c.png,research,2001\nimg/x.png,open,2001\n"
    )

    def ids(**where):
        return ImageFolder(tmp_path, manifest="manifest.csv", where=where).ids

    assert ids() == ["img/a.png", "img/b.png", "img/c.png"]
    assert ids(licence_class="open") == ["img/a.png", "img/b.png"]
    assert ids(licence_class=["open", "research"], year=2001) == ["img/b.png", "img/c.png"]
    listed = ImageFolder(tmp_path, manifest="manifest.csv")
    assert listed.skipped == {"img/x.png": "no such file"}
    with pytest.raises(DataError) as error:
        ids(license="open")
    assert str(error.value) == (
        f"ImageFolder: expected a column 'license' in '{tmp_path / 'manifest.csv'}'; "
        "got file, licence_class, year."
    )
    with pytest.raises(DataError) as error:
        ids(licence_class="none")
    assert str(error.value) == (
        "ImageFolder: expected at least one readable picture; got 0 files, none of them usable."
    )


def test_split_is_stable_disjoint_and_never_empty(tmp_path):
    for index in range(60):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{index}.png")
    parts = {s: ImageFolder(tmp_path, split=s).ids for s in ("all", "train", "val")}
    assert sorted(parts["train"] + parts["val"]) == parts["all"]
    assert 1 <= len(parts["val"]) <= 8
    for index in range(60, 70):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{index}.png")
    assert set(parts["train"]) <= set(ImageFolder(tmp_path, split="train").ids)
    two = tmp_path / "two"
    two.mkdir()
    for name in "ab":
        Image.new("RGB", (2, 2)).save(two / f"{name}.png")
    assert len(ImageFolder(two, split="val")) == len(ImageFolder(two, split="train")) == 1


def test_exclude_takes_patterns_and_data_sets(tmp_path):
    held, folder = tmp_path / "held", tmp_path / "folder"
    held.mkdir()
    (folder / "thumbs").mkdir(parents=True)
    smooth(0).save(held / "cat.png")
    smooth(0, (32, 24)).save(folder / "copy.jpg", quality=80)
    smooth(1).save(folder / "other.png")
    smooth(2).save(folder / "thumbs" / "x.png")
    dataset = ImageFolder(folder, train=True, exclude=["thumbs/*", ImageFolder(held)])
    assert dataset.ids == ["other.png"]
    assert list(dataset.skipped) == ["copy.jpg"]
    assert dataset.skipped["copy.jpg"].startswith("a copy of cat.png, ")


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "far").mkdir()
    picture(0).save(tmp_path / "far" / "a.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "up").symlink_to(tmp_path / "root")
    assert ImageFolder(tmp_path / "root").ids == ["link/a.png"]


def test_wrong_arguments_get_a_sentence(tmp_path):
    cases = [
        (DataError, {"root": tmp_path / "no"}, (
            f"ImageFolder: expected a folder; got '{tmp_path / 'no'}', which is none. "
            "Set data.root=/path/to/pictures.")),
        (DataError, {"root": tmp_path}, (
            "ImageFolder: expected at least one readable picture; "
            "got 0 files, none of them usable.")),
        (DataError, {"root": tmp_path, "manifest": "m.csv"}, (
            f"ImageFolder: expected a manifest '{tmp_path / 'm.csv'}'; got no such file.")),
        (ConfigError, {"root": tmp_path, "where": {"a": 1}}, (
            "ImageFolder: expected a manifest to go with 'where'; got none.")),
        (ConfigError, {"root": tmp_path, "split": "test"}, (
            "ImageFolder split: there is no 'test'; choose one of all, train, val.")),
    ]  # fmt: skip
    for kind, options, message in cases:
        with pytest.raises(kind) as error:
            ImageFolder(**options)
        assert str(error.value) == message
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        ImageFolder(tmp_path)
    assert str(error.value) == (
        "ImageFolder: expected at least one readable picture; got 1 files, "
        "none of them usable (first: a.png: an empty file)."
    )


def test_only_the_first_rank_names_what_is_left_out(folder, caplog, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    ImageFolder(folder)
    assert not caplog.records


def test_a_data_set_can_be_pickled_for_spawned_workers(folder):
    for cache in (True, False):
        dataset = ImageFolder(folder, size=16, train=True, cache=cache)
        copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - made one line above
        assert torch.equal(copy[1, 2], dataset[1, 2])
        assert copy.skipped == dataset.skipped
