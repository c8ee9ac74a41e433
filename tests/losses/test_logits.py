"""Logit losses: mean square of logits on resized, normalised images; off without weights."""

import logging

import pytest
import torch
import torchvision
from torch import nn

from tokenizers_vq.errors import CheckpointError, ShapeError
from tokenizers_vq.losses.logits import LogitLoss, load_logits, normalised


class Pooled(nn.Module):
    """Two logits: the means of the red and of the green channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x.mean((2, 3))[:, :2]


def test_the_value_by_hand():
    x, y = torch.full((2, 3, 16, 16), -1.0), torch.full((2, 3, 16, 16), -1.0)
    y[:, 0] = 1.0  # red from 0 to 1: 1 / 0.229 after normalisation; green stays
    assert LogitLoss(Pooled())(x, y).item() == pytest.approx((1 / 0.229) ** 2 / 2, rel=1e-5)


def test_only_the_reconstruction_gets_a_gradient():
    loss, x = LogitLoss(Pooled()), torch.zeros(1, 3, 8, 8, requires_grad=True)
    y = torch.ones(1, 3, 8, 8, requires_grad=True)
    loss(x, y).backward()
    assert (x.grad, y.grad is not None) == (None, True)


def test_images_are_resized_and_normalised():
    out = normalised(torch.ones(1, 1, 300, 200))
    assert out.shape == (1, 3, 224, 224)
    wanted = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert out.mean((0, 2, 3)).tolist() == pytest.approx(wanted, rel=1e-4)


def test_videos_are_refused():
    with pytest.raises(ShapeError) as error:
        LogitLoss(Pooled())(torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 2, 8, 8))
    assert str(error.value) == (
        "LogitLoss: expected images of 1 or 3 channels; got (1, 3, 2, 8, 8). "
        "Take the term out of the weights."
    )


def test_without_weights_the_term_is_off_with_one_line(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("TVQ_WEIGHTS", raising=False)
    with caplog.at_level(logging.WARNING):
        assert load_logits("resnet50") is None
    assert [record.getMessage() for record in caplog.records] == [
        f"perceptual/resnet50 is off: no resnet50-0676ba61.pth in {tmp_path}/checkpoints. "
        "Put torchvision's file there, or set TVQ_WEIGHTS to it."
    ]


def test_weights_of_this_machine_are_used_and_leave_the_seed_alone(tmp_path):
    torch.manual_seed(1)
    network = torchvision.models.resnet50(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    torch.manual_seed(5)
    loss = load_logits("resnet50", tmp_path / "mine.pth")
    after = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(()))
    x, y = torch.rand(1, 3, 224, 224) * 2 - 1, torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        wanted = (network(normalised(x)) - network(normalised(y))).square().mean()
    assert loss(x, y).item() == pytest.approx(wanted.item(), rel=1e-4)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError) as error:
        load_logits("resnet50", tmp_path / "other.pth")
    assert str(error.value) == (
        "perceptual/resnet50: expected torchvision's weights of resnet50; got others in "
        f"'{tmp_path / 'other.pth'}'. The right file is called resnet50-0676ba61.pth."
    )
