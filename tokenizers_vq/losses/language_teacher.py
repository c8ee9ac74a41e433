"""What is said, as a teacher: a recogniser listens, a language model reads what it wrote.

Reference:
    Ahmed et al., DM-Codec, 2024, https://arxiv.org/abs/2410.15017, section 3.2. The words are not
    aligned to the frames: they are padded to as many tokens as there are frames of 20 ms.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import CheckpointError, MissingExtraError
from tokenizers_vq.functional.resampling import resample

RATE, HOP = 16000, 320


class LanguageTeacher:
    """A recogniser with CTC and a language model of transformers, from folders.

    DM-Codec's are wav2vec 2.0 and BERT. What is recognised are the most likely letters of each
    frame. Sounds of more frames than the language model has positions are read as if spread over
    all of them.

    Args:
        listener: folder of the recogniser, with its vocabulary.
        reader: folder of the language model, with its vocabulary.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: a folder holds no such model.
    """

    def __init__(self, listener: str | Path, reader: str | Path) -> None:
        try:
            from transformers import AutoModel, AutoModelForCTC
        except ImportError as error:
            raise MissingExtraError(
                "language_teacher: expected the package transformers; got none. pip install "
                "transformers, or teach without language."
            ) from error
        self._ctc, self._letters = _loaded(AutoModelForCTC, listener, "recogniser with CTC")
        self._reader, self._words = _loaded(AutoModel, reader, "language model")
        self.width: int = self._reader.config.hidden_size

    @torch.no_grad()
    def texts(self, audio: Tensor, sample_rate: int) -> list[str]:
        """Return what is said in the mean of the channels of ``audio (B, C, T)``."""
        x = resample(audio.mean(1), sample_rate, RATE)
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-7).sqrt()
        best = self._ctc.to(x.device)(x).logits.argmax(-1)
        texts: list[str] = self._letters.batch_decode(best)
        return texts

    @torch.no_grad()
    def features(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Return ``(B, frames, width)``, the mean of the layers of the language model."""
        frames = max(round(audio.shape[-1] / sample_rate * RATE / HOP), 4)
        length = min(frames, self._reader.config.max_position_embeddings)
        tokens = self._words(
            [text.lower() for text in self.texts(audio, sample_rate)],
            padding="max_length", truncation=True, max_length=length, return_tensors="pt",
        ).to(audio.device)  # fmt: skip
        layers = self._reader.to(audio.device)(**tokens, output_hidden_states=True).hidden_states
        return torch.stack(layers).mean(0)


def _loaded(kind: Any, folder: str | Path, what: str) -> tuple[Any, Any]:
    """Return the frozen model of a folder and its vocabulary."""
    from transformers import AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = kind.from_pretrained(folder, use_safetensors=True, **local)
        vocabulary = AutoTokenizer.from_pretrained(folder, **local)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"language_teacher: expected a {what} of transformers in {folder}; got "
            f"{str(error).splitlines()[0].rstrip('.')}. Give its folder, with its vocabulary."
        ) from error
    return model.eval().requires_grad_(False), vocabulary
