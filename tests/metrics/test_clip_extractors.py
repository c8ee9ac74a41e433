import hashlib
import warnings

import pytest
import torch

from tokenizers_vq.data.synthetic_video import SyntheticVideo
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.errors import CheckpointError, ShapeError
from tokenizers_vq.metrics import extractors, weights
from tokenizers_vq.metrics.clip_extractors import I3D, FrameChanges
from tokenizers_vq.metrics.extractors import Features
from tokenizers_vq.metrics.fidelity import Fidelity
from tokenizers_vq.metrics.weights import WeightsFile


class Means:
    """Mean and largest value of each picture."""

    id, dim = "means", 2

    def __call__(self, images):
        flat = images.float().flatten(1)
        return Features(torch.stack([flat.mean(1), flat.amax(1)], 1), flat.new_zeros(len(flat), 0))


class Network(torch.nn.Module):
    """What the published file looks like from outside."""

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = False,
        return_features: bool = False,
    ):  # fmt: skip
        ok = not rescale and resize and return_features
        return x.mean((1, 2, 3, 4))[:, None].repeat(1, 400) if ok else x


def clips(count=4, frames=3):
    data = SyntheticVideo(n=count, frames=frames, size=32, seed=3)
    return to_uint8(torch.stack([data[k] for k in range(count)]))


def test_appearance_and_change_by_hand():
    clip = torch.zeros(1, 3, 3, 2, 2, dtype=torch.uint8)
    clip[:, :, 1], clip[:, :, 2] = 30, 10
    network = FrameChanges(Means())
    # means of 0, 30, 10; changes of 30 and 20
    assert network(clip).pooled[0].tolist() == pytest.approx([40 / 3, 40 / 3, 25, 25])
    assert network.dim == 4
    with pytest.raises(ShapeError, match=r"^FrameChanges: expected clips of at least 2 frames"):
        network(clip[:, :, :1])


def test_the_distance_is_its_own_and_sees_what_frames_do_not():
    real = clips()
    still = real[:, :, :1].expand_as(real).contiguous()
    backwards = real.flip(2).contiguous()
    values = {}
    for name, fake in (("same", real.clone()), ("backwards", backwards), ("still", still)):
        metric = Fidelity("efflite0-clip", resamples=10)
        metric.update(real, fake)
        scores = metric.compute()
        assert list(scores) == ["rFD-EffLite0-clip", "rKD-EffLite0-clip"]
        values[name] = scores["rFD-EffLite0-clip"].value
        assert "mean |change|" in scores["rFD-EffLite0-clip"].detail["extractor"]
    assert values["same"] < 1e-9
    assert values["still"] > 10 * values["backwards"]


def test_pictures_are_no_clips():
    metric = Fidelity("efflite0-clip", resamples=10)
    with pytest.raises(ShapeError, match=r"expected shape \(B, 3, T, H, W\)"):
        metric.update(clips()[:, :, 0], clips()[:, :, 0])


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A TorchScript file under the published name, with its own hash as the published one."""
    monkeypatch.setenv("TVQ_WEIGHTS", str(tmp_path))
    extractors._built.cache_clear()
    path = tmp_path / "i3d_torchscript.pt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")
        torch.jit.script(Network()).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    table = {**weights.WEIGHTS, "i3d-torchscript": WeightsFile((path.name,), digest)}
    monkeypatch.setattr(weights, "WEIGHTS", table)
    yield path
    extractors._built.cache_clear()


def test_fvd_takes_the_file_by_its_path(file):
    real = clips(frames=10)
    features = I3D()(real).pooled
    assert features.shape == (4, 400)
    assert features[:, 0].tolist() == pytest.approx(
        (real.double() / 127.5 - 1).mean((1, 2, 3, 4)).tolist(), abs=1e-5
    )
    metric = Fidelity("i3d", resamples=10)
    metric.update(real, real)
    assert metric.compute()["rFVD"].value == pytest.approx(0, abs=1e-9)
    with pytest.raises(ShapeError, match=r"^I3D: expected clips of at least 10 frames"):
        I3D()(real[:, :, :9])


def test_another_file_is_refused_and_none_is_one_sentence(file, monkeypatch):
    file.write_bytes(b"another")
    with pytest.raises(CheckpointError, match=r"^weights i3d-torchscript: expected a file whose"):
        I3D()
    file.unlink()
    monkeypatch.setenv("TORCH_HOME", str(file.parent))
    metric = Fidelity("i3d", resamples=10)
    metric.update(clips(), clips())
    digest = weights.WEIGHTS["i3d-torchscript"].sha256
    assert metric.compute()["rFVD"].reason == f"weights i3d-torchscript ({digest}...) not found"


def test_the_published_hash():
    assert weights.WEIGHTS["i3d-torchscript"] == WeightsFile(("i3d_torchscript.pt",), "bec6519f")
