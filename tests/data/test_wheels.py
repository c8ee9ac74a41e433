import sys

import pytest

from tokenizers_vq.data import wheels
from tokenizers_vq.data.wheels import PHOTOS, WheelPhotos, wheel_photos
from tokenizers_vq.errors import ConfigError, MissingExtraError

HELD_OUT = ["chelsea", "china", "coffee", "grace_hopper"]


def test_all_photos_of_the_table_are_there_and_readable():
    dataset = WheelPhotos("all", size=32)
    assert dataset.ids == [photo.id for photo in PHOTOS]
    assert dataset.skipped == {}
    assert {tuple(x.shape) for x in dataset} == {(3, 32, 32)}
    assert all(photo.licence and photo.credit for photo in PHOTOS)


def test_held_out_photos_are_never_in_the_training_split():
    held, train = WheelPhotos("heldout"), WheelPhotos("train", size=16, train=True)
    assert held.ids == HELD_OUT
    assert len(train) == 8
    assert not set(held.ids) & set(train.ids)
    assert [photo.id for photo in wheel_photos("heldout")] == HELD_OUT
    assert held.sha256() != train.sha256()


def test_no_two_photos_are_copies_of_each_other():
    bits = WheelPhotos("all").hashes()
    pairs = [(a, b) for a in bits for b in bits if a < b and (bits[a] != bits[b]).sum() <= 12]
    assert pairs == []


def test_the_packages_stay_unimported(monkeypatch):
    packages = ("skimage", "sklearn", "matplotlib", "scipy")
    for package in packages:
        monkeypatch.delitem(sys.modules, package, raising=False)
    WheelPhotos("all")
    assert not set(packages) & set(sys.modules)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as error:
        WheelPhotos("heldout")
    assert str(error.value) == (
        "WheelPhotos: expected the package scikit-image, which holds some of the photos; "
        "got none. pip install 'tokenizers-vq[demo]'."
    )


def test_an_unknown_split_is_an_error():
    with pytest.raises(ConfigError) as error:
        WheelPhotos("test")
    assert str(error.value) == ("WheelPhotos: expected split train, heldout or all; got 'test'.")
