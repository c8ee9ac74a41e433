"""Feature targets: InfoNCE and cosine by hand, only latents learn, off without weights."""

import logging
import math

import pytest
import timm
import torch
from torch import nn

from tokenizers_vq.errors import CheckpointError, ConfigError, ShapeError
from tokenizers_vq.losses.features import FeatureTarget, Teacher, contrastive, load_features
from tokenizers_vq.types import Quantized, Reconstruction

MODEL = "test_vit"


class Network(nn.Module):
    """Features are the 4 x 4 average pixels in 16 channels; the summary is their mean."""

    num_features = 16

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward_features(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 4).repeat(1, 6, 1, 1)[:, :16] * self.weight

    def forward_head(self, x, *, pre_logits):
        assert pre_logits
        return x.mean((2, 3))


def made(z_q, hidden=None):
    quantized = Quantized(z_q, torch.zeros(1), torch.zeros(()), {})
    return Reconstruction(torch.empty(0), z_q, quantized, hidden=hidden)


def teacher():
    return Teacher(Network(), (8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_contrastive_by_hand():
    predicted = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    # cosines 1 on the diagonal, 0 beside it: -log softmax of (2, 0) at temperature 0.5
    expected = math.log(1 + math.exp(-2.0))
    assert contrastive(predicted, predicted, 0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["contrastive", "cosine"])
def test_a_target_teaches_only_its_channels(loss):
    torch.manual_seed(0)
    target = FeatureTarget(teacher(), (2, 6), loss=loss, layers=1, heads=2)
    z_q = torch.randn(3, 4, 4, 8, requires_grad=True)
    target(torch.rand(3, 3, 16, 16), made(z_q)).backward()
    reached = z_q.grad.abs().sum((0, 1, 2)) > 0
    assert reached.tolist() == [False, False, True, True, True, True, False, False]
    assert all("teacher" not in name for name, _ in target.named_parameters())


def test_a_target_can_be_learned():
    torch.manual_seed(0)
    target = FeatureTarget(teacher(), (0, 3), loss="cosine", layers=1, heads=2)
    optimizer = torch.optim.Adam(target.parameters(), 1e-2)
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    z_q = nn.functional.adaptive_avg_pool2d(x, 4).movedim(1, -1)
    losses = []
    for _ in range(40):
        loss = target(x, made(z_q))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_hidden_layer_is_taught_and_has_to_be_there():
    target = FeatureTarget(teacher(), (0, 5), loss="cosine", layers=0, of="hidden")
    hidden = torch.randn(2, 4, 4, 5, requires_grad=True)
    z_q = torch.randn(2, 8, 3, requires_grad=True)
    target(torch.rand(2, 3, 8, 8), made(z_q, hidden)).backward()
    assert hidden.grad.abs().min() > 0
    assert z_q.grad is None
    with pytest.raises(ConfigError) as error:
        target(torch.rand(2, 3, 8, 8), made(z_q))
    assert str(error.value) == (
        "features: expected a model that shows a hidden layer; got one without. Set "
        "decoder.hidden_layer, or features.of to z_q."
    )
    with pytest.raises(ConfigError, match="source of features"):
        FeatureTarget(teacher(), (0, 5), of="z")


def test_latents_without_the_channels_are_refused():
    target = FeatureTarget(teacher(), (0, 9), layers=1, heads=2)
    with pytest.raises(ShapeError) as error:
        target(torch.rand(1, 3, 8, 8), made(torch.rand(1, 4, 4, 8)))
    assert str(error.value) == (
        "features: expected latents with at least 9 channels, on a 2-d grid for cosine; "
        "got (1, 4, 4, 8). Correct features.channels."
    )


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match=r"^feature loss: there is no 'l2'; choose one of"):
        FeatureTarget(teacher(), (0, 3), loss="l2")
    with pytest.raises(ConfigError) as error:
        FeatureTarget(teacher(), (3, 3))
    assert str(error.value) == (
        "features: expected channels [first, end] that rise; got [3, 3]. "
        "Name the channels that learn from the teacher."
    )
    with pytest.raises(ConfigError) as error:
        load_features("no_such_net", (0, 3))
    assert str(error.value) == (
        "features: expected a model of timm; got 'no_such_net'. See timm.list_models()."
    )


def test_without_weights_the_term_is_off_with_one_line(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("TVQ_WEIGHTS", raising=False)
    with caplog.at_level(logging.WARNING):
        assert load_features(MODEL, (0, 3)) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"features {MODEL} is off: no {MODEL}.safetensors in {tmp_path}/checkpoints. "
        "Put timm's weights there under that name, or set TVQ_WEIGHTS to their folder."
    ]


def test_a_timm_model_teaches_from_a_file(tmp_path):
    network = timm.create_model(MODEL, pretrained=False)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    target = load_features(MODEL, (0, 4), tmp_path / "vit.pth", layers=1, heads=2)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.isfinite(target(x, made(torch.randn(2, 4, 4, 8))))
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"^features test_vit: expected timm's weights of th"):
        load_features(MODEL, (0, 4), tmp_path / "other.pth")
