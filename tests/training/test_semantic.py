"""The first codebooks learn what a teacher hears; the rest of the pass is the plain forward."""

import math

import pytest
import torch

from tokenizers_vq.configs import tokenizer_config
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.training.semantic import Semantic


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return Tokenizer.from_config(tokenizer_config("tiny_seanet", "rvq")).train()


def test_the_term_compares_the_first_codes_and_teaches_the_encoder(tokenizer):
    semantic = Semantic(tokenizer.encoder.dim)
    x = 0.1 * torch.randn(2, 1, 640)
    torch.manual_seed(1)
    plain = tokenizer(x)
    torch.manual_seed(1)
    made = semantic(tokenizer, x, 0)
    assert torch.equal(made.x_hat, plain.x_hat)
    rate = tokenizer.signal.sample_rate
    heard = semantic._teachers[0].features(x, rate)
    frames = made.z.shape[1]
    wanted = torch.nn.functional.interpolate(heard.mT, frames, mode="linear").mT
    student = semantic.project(tokenizer.quantizer.decode(made.quantized.indices[..., :1])).detach()
    terms = [
        math.log1p(math.exp(-float(torch.cosine_similarity(student[b, :, d], wanted[b, :, d], 0))))
        for b in range(2)
        for d in range(64)
    ]
    assert made.terms["semantic"].item() == pytest.approx(sum(terms) / 128, rel=1e-4)
    made.terms["semantic"].backward()
    assert all(p.grad is None for p in tokenizer.decoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() for p in tokenizer.encoder.parameters())
    assert semantic.project.weight.grad.abs().sum() > 0


def test_language_and_sound_teach_by_half(tokenizer, monkeypatch):
    class Reader:
        width = 64

        def __init__(self, listener, reader):
            assert (listener, reader) == ("ears", "eyes")

        def features(self, audio, sample_rate):
            return torch.sin(torch.arange(2 * 5 * 64.0)).view(2, 5, 64)

    monkeypatch.setattr("tokenizers_vq.training.semantic.LanguageTeacher", Reader)
    language, x = {"listener": "ears", "reader": "eyes"}, 0.1 * torch.randn(2, 1, 640)

    def term(**options):
        torch.manual_seed(1)
        return (
            Semantic(tokenizer.encoder.dim, **options)(tokenizer.eval(), x, 0)
            .terms["semantic"]
            .item()
        )

    halves = [term(teacher=None, language=language), term()]
    assert term(language=language) == pytest.approx(sum(halves) / 2, rel=1e-5)
    Reader.width = 12
    with pytest.raises(ConfigError) as error:
        Semantic(8, language=language)
    assert str(error.value).startswith(
        "semantic: expected one or two teachers of one width; got [12, 64]."
    )
    with pytest.raises(ConfigError, match=r"listener and reader; got ears\. Name both"):
        Semantic(8, language={"ears": "x"})
    with pytest.raises(ConfigError, match="got \\[\\]"):
        Semantic(8, teacher=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": "x"}, "axis of distillation: there is no 'x'"),
        ({"levels": 0}, "semantic: expected levels of at least 1; got 0."),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        Semantic(8, **options)
    assert str(error.value).startswith(message)
