import numpy as np
import pytest
import torch
from PIL import Image

from tokenizers_vq.data.transforms import (
    Augment,
    cut,
    difference_hash,
    draw_generator,
    eval_view,
    image_to_signal,
    resized_shape,
    signal_to_image,
    to_signal,
    to_uint8,
    train_view,
)
from tokenizers_vq.errors import ConfigError


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(width, height, seed=0):
    return picture(7, 5, seed).resize((width, height), Image.Resampling.BICUBIC)


def array(image):
    return np.asarray(image).astype(int)


def test_all_256_levels_survive_the_way_to_a_signal_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    signal = to_signal(levels)
    assert signal.dtype == torch.float32
    assert signal.min() == -1
    assert signal.max() == 1
    assert torch.equal(to_uint8(signal), levels)
    assert torch.equal(to_uint8(signal.double()), levels)


def test_to_uint8_rounds_halves_to_even_and_clips():
    halves = torch.arange(255) + 0.5
    signal = halves / 127.5 - 1
    exact = (signal + 1) * 127.5 == halves  # float32 hits some of the halves exactly
    levels = to_uint8(signal[exact])
    assert levels.dtype == torch.uint8
    assert len(levels) > 50
    assert (levels % 2 == 0).all()
    inputs = torch.tensor([-9.0, 9.0, float("-inf"), float("inf"), float("nan")])
    assert to_uint8(inputs).tolist() == [0, 255, 0, 255, 0]


def test_picture_to_signal_is_to_signal_channels_first():
    image = picture(6, 4)
    signal = image_to_signal(image)
    assert signal.shape == (3, 4, 6)
    assert signal.is_contiguous()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(signal, to_signal(pixels))
    assert np.array_equal(array(signal_to_image(signal)), array(image))


@pytest.mark.parametrize(("width", "height"), [(60, 40), (40, 61), (50, 50), (333, 97)])
def test_evaluation_view_is_a_resize_and_a_centre_crop(width, height):
    image = smooth(width, height)
    new_width, new_height = resized_shape(image, 32)
    assert min(new_width, new_height) == 32
    whole = image.resize((new_width, new_height), Image.Resampling.LANCZOS)
    left, top = round((new_width - 32) / 2), round((new_height - 32) / 2)
    expected = whole.crop((left, top, left + 32, top + 32))
    view = eval_view(image, 32)
    assert view.size == (32, 32)
    assert np.abs(array(view) - array(expected)).max() <= 1


def test_unchanged_scale_copies_pixels():
    image = picture(50, 40)
    assert np.array_equal(
        array(cut(image, image.size, (7, 3), 20)), array(image.crop((7, 3, 27, 23)))
    )
    assert eval_view(image, None) is image
    assert np.array_equal(array(eval_view(image, 40)), array(image.crop((5, 0, 45, 40))))


def test_reduction_does_not_alias():
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    view = array(eval_view(Image.fromarray(stripes), 64))[:, 4:-4]  # the edges have half a filter
    assert np.abs(view - 127.5).max() < 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (1000, 1), (3, 200), (16, 16)])
def test_pictures_smaller_than_the_crop_are_enlarged(shape):
    image = picture(*shape)
    assert eval_view(image, 16).size == (16, 16)
    view = train_view(image, 16, Augment(), draw_generator(0, 0, 0))
    assert view.size == (16, 16)


def test_crops_depend_on_seed_epoch_and_index_alone():
    image = picture(64, 48)

    def crop(*key):
        np.random.seed(torch.randint(100, ()).item())
        return train_view(image, 16, Augment(), draw_generator(*key)).tobytes()

    assert crop(0, 0, 0) == crop(0, 0, 0)
    assert len({crop(0, 0, 0), crop(1, 0, 0), crop(0, 1, 0), crop(0, 0, 1)}) == 4


def test_training_scale_stays_in_its_range_and_never_enlarges_a_large_picture():
    image = picture(64, 48)
    exact = Augment(shorter_side=[200, 300], flip=False)
    view = array(train_view(image, 16, exact, draw_generator(0, 0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(array(image), (16, 16, 3))[:, :, 0]
    assert (windows == view).all(axis=(2, 3, 4)).sum() == 1  # a crop of the original pixels


def test_half_of_the_training_crops_are_mirrored():
    image = picture(8, 8)
    views = [train_view(image, None, Augment(), draw_generator(0, 0, i)) for i in range(200)]
    same = sum(np.array_equal(array(view), array(image)) for view in views)
    assert 70 < same < 130
    still = train_view(image, None, Augment(flip=False), draw_generator(0, 0, 1))
    assert np.array_equal(array(still), array(image))


def test_an_empty_scale_range_is_an_error():
    with pytest.raises(ConfigError) as error:
        Augment(shorter_side=(64, 32))
    assert str(error.value) == (
        "Augment: expected shorter_side (low, high) with 0 < low <= high; got (64, 32)."
    )


def test_difference_hash_knows_copies_and_tells_others_apart(tmp_path):
    image = smooth(200, 150)
    image.resize((90, 68)).save(tmp_path / "copy.jpg", quality=60)
    mine = difference_hash(image)
    assert mine.shape == (64,)
    assert np.count_nonzero(mine != difference_hash(Image.open(tmp_path / "copy.jpg"))) <= 6
    assert np.count_nonzero(mine != difference_hash(smooth(200, 150, seed=1))) > 6
