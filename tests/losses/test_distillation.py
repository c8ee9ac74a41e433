"""Distillation losses against loops, and the teacher without weights."""

import math

import pytest
import torch

from tokenizers_vq.errors import CheckpointError, ShapeError
from tokenizers_vq.losses.distillation import (
    LogMelTeacher,
    SpeechModel,
    at_rate,
    d_axis,
    guided,
    t_axis,
)

S, H = torch.randn(2, 5, 3), torch.randn(2, 6, 3)


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_the_d_axis_takes_the_cosine_along_time():
    terms = [
        math.log(1 / (1 + math.exp(-cosine(S[b, :, d], H[b, :5, d]))))
        for b in range(2)
        for d in range(3)
    ]
    assert d_axis(S, H).item() == pytest.approx(-sum(terms) / 6, rel=1e-5)


def test_the_t_axis_takes_it_along_the_features():
    terms = [
        math.log(1 / (1 + math.exp(-cosine(S[b, t], H[b, t])))) for b in range(2) for t in range(5)
    ]
    wanted = (S - H[:, :5]).abs().mean().item() - 0.5 * sum(terms) / 10
    assert t_axis(S, H, 0.5).item() == pytest.approx(wanted, rel=1e-5)


def test_two_teachers_guide_by_their_weights():
    words = torch.randn(2, 5, 3)
    assert guided(S, words, H).item() == pytest.approx(
        (d_axis(S, words).item() + d_axis(S, H).item()) / 2, rel=1e-6
    )
    assert guided(S, words, H, (1.0, 0.0)).item() == pytest.approx(d_axis(S, words).item())
    student = S.clone().requires_grad_()
    guided(student, words, H, (0.25, 0.75)).backward()
    one, other = (
        torch.autograd.grad(d_axis(student, teacher), student)[0] for teacher in (words, H)
    )
    torch.testing.assert_close(student.grad, 0.25 * one + 0.75 * other)


def test_the_log_mel_teacher_hears_frames():
    features = LogMelTeacher(mels=20).features(torch.randn(2, 1, 3200), 16000)
    assert features.shape == (2, 11, 20)
    assert at_rate(features, 7).shape == (2, 7, 20)


def test_another_width_is_refused():
    with pytest.raises(ShapeError) as error:
        d_axis(S, H[..., :2])
    assert str(error.value) == (
        "distillation: expected student and teacher (B, T, D); got (2, 5, 3) and (2, 6, 2). "
        "Project the student to the teacher's width."
    )


def test_a_speech_model_gives_the_mean_of_its_layers(tmp_path):
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
    )  # fmt: skip
    model = HubertModel(config).eval()
    model.save_pretrained(tmp_path)
    teacher = SpeechModel(tmp_path)
    x = 0.1 * torch.randn(2, 1, 400)
    with torch.no_grad():
        layers = model(x[:, 0], output_hidden_states=True).hidden_states
    assert teacher.width == 16
    assert len(layers) == 3
    torch.testing.assert_close(teacher.features(x, 16000), sum(layers) / 3)
    assert teacher.features(x[..., :200], 8000).shape == layers[0].shape


def test_a_folder_without_a_speech_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="expected a speech model of transformers"):
        SpeechModel(tmp_path)
