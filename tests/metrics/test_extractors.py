import pytest
import torch

from tokenizers_vq.errors import ConfigError, MissingExtraError
from tokenizers_vq.metrics.extractors import extractor


@pytest.fixture(scope="module")
def lite():
    try:
        return extractor("efflite0")
    except MissingExtraError:
        return None  # the extra `eval` is optional; then there is nothing to test


def photo() -> torch.Tensor:
    from skimage import data
    from skimage.transform import resize

    image = resize(data.chelsea(), (256, 256), anti_aliasing=True, preserve_range=True)
    return torch.from_numpy(image.round()).byte().permute(2, 0, 1)[None]


def test_lite0_knows_a_cat_with_its_own_normalisation(lite):
    if lite is not None:
        features = lite(photo())
        assert features.pooled.shape == (1, 1280)
        assert int(features.logits.argmax()) in range(281, 286)  # the five domestic cats


def test_lite0_features_do_not_depend_on_the_batch_and_the_last_are_remembered(lite):
    if lite is not None:
        one = photo()
        batch = torch.cat([255 - one, one])
        assert torch.allclose(lite(batch).pooled[1:], lite(one).pooled, atol=1e-4)
        assert lite(one) is lite(one)


def test_unknown_extractor():
    with pytest.raises(ConfigError) as error:
        extractor("resnet")
    assert str(error.value) == (
        "extractor: there is no 'resnet'; choose one of clip, dinov2, efflite0, efflite0-clip, "
        "i3d, inception, inception-clean, inception-halfpixel."
    )
