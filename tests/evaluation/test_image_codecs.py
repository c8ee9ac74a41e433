import io

import numpy as np
import pytest
from PIL import Image

from tokenizers_vq.errors import ConfigError, ShapeError
from tokenizers_vq.evaluation.image_codecs import (
    CODECS,
    QUALITIES,
    RateTable,
    Request,
    encode_at_bytes,
    encode_many,
)


def photo(size: int = 96, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
    large = np.array(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))
    return np.clip(large + rng.normal(0, 4, large.shape), 0, 255).round().astype(np.uint8)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b).mean())


FAST = {"avif": {"speed": 10}}


@pytest.mark.parametrize("codec", CODECS)
def test_the_file_fits_and_the_next_quality_does_not(codec):
    image = photo()
    encoded = encode_at_bytes(image, codec, 1600, options=FAST.get(codec))
    assert encoded.fits
    assert encoded.n_bytes <= 1600
    assert encoded.image.shape == image.shape
    table = RateTable(image, codec, FAST.get(codec))
    assert len(table.file(encoded.quality)) == encoded.n_bytes
    if encoded.quality < QUALITIES[codec][1]:
        assert len(table.file(encoded.quality + 1)) > 1600


@pytest.mark.parametrize("codec", CODECS)
def test_more_bytes_are_never_worse(codec):
    image = photo()
    table = RateTable(image, codec, FAST.get(codec))
    errors = [error(image, table.best(budget).image) for budget in (900, 1500, 3000)]
    assert errors == sorted(errors, reverse=True)


def test_best_scale_is_at_least_as_good_and_reaches_budgets_own_size_cannot():
    image = photo()
    own = encode_at_bytes(image, "jpeg", 900)
    best = encode_at_bytes(image, "jpeg", 900, rescale=True)
    assert error(image, best.image) <= error(image, own.image)
    tight = encode_at_bytes(image, "jpeg", 600, rescale=True)
    assert tight.fits
    assert tight.scale < 1
    assert not encode_at_bytes(image, "jpeg", 600).fits


def test_an_impossible_budget_gives_the_smallest_file_and_says_so():
    image = photo()
    encoded = encode_at_bytes(image, "jpeg", 10, rescale=True)
    assert not encoded.fits
    assert encoded.n_bytes > 10
    assert encoded.quality == QUALITIES["jpeg"][0]


def test_jpeg_is_progressive_and_its_bytes_are_the_file():
    data = RateTable(photo(), "jpeg").file(50)
    assert Image.open(io.BytesIO(data)).info["progressive"]
    assert encode_at_bytes(photo(), "jpeg", len(data)).n_bytes == len(data)


def test_many_pictures_give_the_same_as_one_by_one():
    requests = [Request(photo(64, seed), (700, 1400)) for seed in range(3)]
    results = encode_many(requests, "webp", workers=2)
    for request, result in zip(requests, results, strict=True):
        for k, budget in enumerate(request.budgets):
            alone = encode_at_bytes(request.image, "webp", budget, rescale=True)
            assert result["best_scale"][k].n_bytes == alone.n_bytes
            assert np.array_equal(result["best_scale"][k].image, alone.image)


def test_wrong_codec_picture_and_budget_are_refused():
    with pytest.raises(ConfigError) as caught:
        encode_at_bytes(photo(), "jpg", 1000)
    assert (
        str(caught.value) == "codec: there is no 'jpg'; choose one of avif, jpeg, jpeg2000, webp."
    )
    with pytest.raises(ShapeError) as caught:
        encode_at_bytes(photo().astype(float), "jpeg", 1000)
    assert str(caught.value) == (
        "codecs: expected a uint8 picture (H, W, 3); got float64 (96, 96, 3). "
        "Round it and put channels last."
    )
    with pytest.raises(ConfigError) as caught:
        encode_at_bytes(photo(), "jpeg", 0)
    assert str(caught.value) == (
        "encode_at_bytes: expected a budget of at least 1 byte; got 0. "
        "Give the size of the tokenizer's file."
    )
