"""A synthesised voice and what damages it, for the tests of the metrics of sound."""

import sys
import types

import torch

from tokenizers_vq import registry
from tokenizers_vq.data.synthetic_audio import SyntheticAudio
from tokenizers_vq.metrics import speech


def voice(seconds: float = 2.0, seed: int = 0, rate: int = 16000) -> torch.Tensor:
    """Return ``(1, T)`` float32."""
    return SyntheticAudio(1, seconds, rate, seed)[0]


def noisy(x: torch.Tensor, snr: float, seed: int = 0) -> torch.Tensor:
    """Return ``x`` with white noise ``snr`` dB below it."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + noise * x.square().mean().sqrt() * 10 ** (-snr / 20)).clamp(-1, 1)


def ladder(x: torch.Tensor) -> list[torch.Tensor]:
    """Return ``x``, lightly damaged, heavily damaged."""
    return [x, noisy(x, 25), noisy(x, 5)]


def build(name: str, **options):
    """Return a metric as a protocol builds it."""
    shared = {"sample_rate": 16000, "weights": {}, "resamples": 20, "seed": 0}
    return registry.build("metric", {"name": name}, **{**shared, **options})


def measured(name: str, real: torch.Tensor, fake: torch.Tensor, **options):
    """Return the scores of one clip ``(1, T)``."""
    metric = build(name, **options)
    metric.update(real[None], fake[None])
    return metric.compute()


def assert_ranks(name: str, x: torch.Tensor, *columns: str, **options) -> None:
    """Assert clean > light > heavy in every column (all of them if none is named)."""
    scores = [measured(name, x, damaged, **options) for damaged in ladder(x)]
    for column in columns or scores[0]:
        clean, light, heavy = (score[column].value for score in scores)
        up = scores[0][column].higher_is_better
        assert (clean > light > heavy) if up else (clean < light < heavy), (column, scores)


def hide(monkeypatch, *modules: str) -> None:
    """Make this machine one without some modules."""
    found = speech.find_spec
    monkeypatch.setattr(speech, "find_spec", lambda m: None if m in modules else found(m))


def pretend(monkeypatch, name: str, **attributes) -> types.ModuleType:
    """Install a module of that name for the length of a test."""
    module = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace(name=name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
    parent, _, child = name.rpartition(".")
    if parent:
        holder = sys.modules.get(parent) or pretend(monkeypatch, parent)
        monkeypatch.setattr(holder, child, module, raising=False)
    return module
