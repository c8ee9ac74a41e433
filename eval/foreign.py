"""Adapters of other projects' tokenizers for ``tvq verify``; weights are random unless replaced.

tvq verify eval/foreign.py:encodec       (needs transformers; likewise dac, mimi)
tvq verify eval/foreign.py:peer_rvq      (needs vector-quantize-pytorch; likewise peer_vq, peer_fsq)

A published checkpoint goes in by one line: ``EnCodec(EncodecModel.from_pretrained(folder))``.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tokenizers_vq.foreign import Foreign
from tokenizers_vq.types import SignalSpec
from tokenizers_vq.verify.subject import subject_of


class EnCodec(Foreign):
    """``transformers.EncodecModel``, mono, at its default bandwidth."""

    def __init__(self, model: nn.Module) -> None:
        c = model.config
        count = model.quantizer.get_num_quantizers_for_bandwidth(c.target_bandwidths[0])
        spec = SignalSpec("audio", channels=1, sample_rate=c.sampling_rate)
        sizes = (c.codebook_size,) * count
        causal = c.use_causal_conv
        super().__init__("transformers.encodec", model, spec, (c.hop_length,), sizes, causal=causal)

    def indices(self, x: Tensor) -> Tensor:
        return self.module.encode(x).audio_codes[0].transpose(1, 2)

    def signals(self, indices: Tensor) -> Tensor:
        return self.module.decode(indices.transpose(1, 2)[None], [None]).audio_values

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.module(x).audio_values[..., : x.shape[-1]]


class DAC(Foreign):
    """``transformers.DacModel``."""

    def __init__(self, model: nn.Module) -> None:
        c = model.config
        spec = SignalSpec("audio", channels=1, sample_rate=c.sampling_rate)
        sizes = (c.codebook_size,) * c.n_codebooks
        super().__init__("transformers.dac", model, spec, (c.hop_length,), sizes)

    def indices(self, x: Tensor) -> Tensor:
        return self.module.encode(x).audio_codes.transpose(1, 2)

    def signals(self, indices: Tensor) -> Tensor:
        audio = self.module.decode(audio_codes=indices.transpose(1, 2)).audio_values
        return audio if audio.ndim == 3 else audio[:, None]

    def reconstruct(self, x: Tensor) -> Tensor:
        audio = self.module(x).audio_values
        return (audio if audio.ndim == 3 else audio[:, None])[..., : x.shape[-1]]


class Mimi(Foreign):
    """``transformers.MimiModel`` with all its codebooks."""

    def __init__(self, model: nn.Module) -> None:
        c = model.config
        spec = SignalSpec("audio", channels=1, sample_rate=c.sampling_rate)
        step, sizes = int(c.sampling_rate / c.frame_rate), (c.codebook_size,) * c.num_quantizers
        causal = c.use_causal_conv
        super().__init__("transformers.mimi", model, spec, (step,), sizes, causal=causal)

    def indices(self, x: Tensor) -> Tensor:
        return self.module.encode(x).audio_codes.transpose(1, 2)

    def signals(self, indices: Tensor) -> Tensor:
        return self.module.decode(indices.transpose(1, 2)).audio_values

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.module(x).audio_values[..., : x.shape[-1]]


class Peer(Foreign):
    """A head of vector-quantize-pytorch: its signals are latents, channels first."""

    def __init__(self, head: nn.Module, dim: int, sizes: tuple[int, ...], inverse: str) -> None:
        name = f"vector_quantize_pytorch.{type(head).__name__}"
        super().__init__(name, head, SignalSpec("audio", channels=dim), (1,), sizes)
        self.inverse = getattr(head, inverse)

    def indices(self, x: Tensor) -> Tensor:
        return self.module(x.transpose(1, 2))[1].reshape(len(x), x.shape[2], -1).long()

    def signals(self, indices: Tensor) -> Tensor:
        one = len(self.codebook_sizes) == 1
        return self.inverse(indices[..., 0] if one else indices).transpose(1, 2)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.module(x.transpose(1, 2))[0].transpose(1, 2)


def awake(it: Foreign) -> Foreign:
    """Draw the codebooks of a model of random weights, which are zeros, around its latents."""
    for module in it.module.modules():
        table = getattr(module, "embed_sum", getattr(module, "embed", None))
        if isinstance(table, Tensor) and hasattr(module, "quantize"):
            module.encode = _drawing(module, table)
    it.encode(subject_of(it).x)
    return it


def _drawing(module: nn.Module, table: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an ``encode`` whose first call fills the table around what it is given."""

    def encode(latents: Tensor) -> Tensor:
        rows = latents.reshape(-1, latents.shape[-1])
        # not with the latents themselves: rows that are met exactly leave ties of zeros
        table.copy_(rows.mean(0) + rows.std(0) * torch.randn(table.shape))
        module._embed = None  # Mimi keeps what the table was
        del module.encode
        return module.encode(latents)

    return encode


def encodec() -> Foreign:
    """EnCodec of 24 kHz with random weights."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    return awake(EnCodec(EncodecModel(EncodecConfig())))


def dac() -> Foreign:
    """DAC of 16 kHz with random weights, a quarter as wide as the published one."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    return DAC(DacModel(DacConfig(encoder_hidden_size=16, decoder_hidden_size=384)))


def mimi() -> Foreign:
    """Mimi with random weights."""
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    return awake(Mimi(MimiModel(MimiConfig())))


def peer_vq() -> Foreign:
    """A codebook of 64 codes."""
    from vector_quantize_pytorch import VectorQuantize

    torch.manual_seed(0)
    head = VectorQuantize(dim=6, codebook_size=64)
    return Peer(head, 6, (64,), "get_output_from_indices")


def peer_rvq() -> Foreign:
    """Four residual codebooks of 64 codes."""
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(0)
    head = ResidualVQ(dim=6, codebook_size=64, num_quantizers=4)
    return Peer(head, 6, (64,) * 4, "get_output_from_indices")


def peer_fsq() -> Foreign:
    """FSQ of 8 x 5 x 5 levels."""
    from vector_quantize_pytorch import FSQ

    torch.manual_seed(0)
    return Peer(FSQ(levels=[8, 5, 5], dim=6), 6, (200,), "indices_to_codes")
