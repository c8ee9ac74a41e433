import numpy as np
import pytest
import torch

from tokenizers_vq.metrics import inception
from tokenizers_vq.metrics.inception import clean_bicubic, halfpixel_bilinear, tf1_bilinear


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 40, 56), generator=generator, dtype=torch.uint8)


def test_tf1_is_that_of_torch_fidelity(pictures):
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as theirs,
    )

    expected = theirs(pictures.float(), size=(299, 299), align_corners=False)
    torch.testing.assert_close(tf1_bilinear(pictures), expected, rtol=0, atol=1e-3)


def test_clean_is_that_of_clean_fid(pictures):
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    expected = np.stack([resize(one.permute(1, 2, 0).numpy()) for one in pictures]).clip(0, 255)
    got = clean_bicubic(pictures).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_flavours_differ_and_agree_at_their_own_size(pictures):
    rules = (tf1_bilinear, clean_bicubic, halfpixel_bilinear)
    one, two, three = (rule(pictures) for rule in rules)
    assert (one - two).abs().mean() > 1
    assert (one - three).abs().mean() > 1
    large = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    for rule in rules:
        assert torch.equal(rule(large), large.float())


def test_the_network_is_that_of_torch_fidelity(pictures, monkeypatch, tmp_path):
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    monkeypatch.setattr(theirs.torch, "load", lambda *a, **k: {})
    monkeypatch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *a: None)
    monkeypatch.setattr(inception, "find_weights", lambda key, given: tmp_path)
    torch.manual_seed(0)
    ours = inception.Inception()
    network = ours.network
    network.features_list = ["2048", "logits_unbiased"]
    got = ours(pictures[:1])
    with torch.no_grad():
        pooled, logits = network(pictures[:1])
    torch.testing.assert_close(got.pooled, pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.logits, logits, rtol=1e-4, atol=1e-5)
    assert got.spatial.shape == (1, 2023)
    assert ours.id == "inception-2015-12-05-6726825d/pool3-2048/tf1-299"
