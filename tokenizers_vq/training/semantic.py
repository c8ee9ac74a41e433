"""The recipe of SpeechTokenizer: the first codebooks learn what a frozen network hears."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.losses.distillation import LogMelTeacher, SpeechModel, Teacher, at_rate, d_axis
from tokenizers_vq.losses.distillation import t_axis as over_features
from tokenizers_vq.losses.language_teacher import LanguageTeacher
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Reconstruction

AXES = {"d": d_axis, "t": over_features}


class Semantic(nn.Module):
    """The forward of the tokenizer, and the term ``model/semantic``.

    One linear map takes the code vectors of the first codebooks to the teacher's features, which
    are averaged or repeated to the frames of the tokenizer. Its weights train and are not
    published.

    Args:
        dim: latent width D.
        teacher: ``log_mel`` (64 bands, no weights), or the folder of a ``SpeechModel``; None where
            language alone teaches.
        language: folders ``listener`` and ``reader`` of a ``LanguageTeacher``, as wide as the other
            teacher: the term is the mean of both.
        levels: how many codebooks, the first ones, learn.
        axis: ``d``, the cosine of each feature over time, or ``t``, of each frame over features.

    Raises:
        ConfigError: another axis, ``levels`` below 1, or teachers of different widths, or none.
        CheckpointError: there is no speech model in the folder.

    Reference:
        Zhang et al., SpeechTokenizer, 2023, https://arxiv.org/abs/2308.16692, section 3.2; with a
        speech model, a language model or both as teachers DM-Codec, Ahmed et al., 2024,
        https://arxiv.org/abs/2410.15017, section 3.2.
    """

    def __init__(
        self,
        dim: int,
        teacher: str | Path | None = "log_mel",
        levels: int = 1,
        axis: str = "d",
        language: Mapping[str, str | Path] | None = None,
    ) -> None:
        super().__init__()
        if axis not in AXES:
            raise unknown_name("axis of distillation", axis, tuple(AXES))
        if levels < 1:
            raise ConfigError(
                f"semantic: expected levels of at least 1; got {levels}. SpeechTokenizer has 1."
            )
        if language is not None and set(language) != {"listener", "reader"}:
            raise ConfigError(
                "semantic: expected language with the folders listener and reader; got "
                f"{', '.join(language) or 'none'}. Name both."
            )
        made: list[Teacher] = [] if language is None else [LanguageTeacher(**language)]
        if teacher is not None:
            made.append(LogMelTeacher() if teacher == "log_mel" else SpeechModel(teacher))
        widths = {one.width for one in made}
        if len(widths) != 1:
            raise ConfigError(
                f"semantic: expected one or two teachers of one width; got {sorted(widths)}. Give "
                "a speech model as wide as the language model, or teacher=null."
            )
        self._teachers = made  # in a list, so that they stay outside the module tree
        self.levels, self.loss = levels, AXES[axis]
        self.project = nn.Linear(dim, widths.pop())

    def forward(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return ``tokenizer(x)`` with the term ``semantic``.

        Args:
            tokenizer: what is trained, of sound.
            x: signals ``(B, C, T)`` in [-1, 1].
            step: optimizer steps taken so far.
        """
        made: Reconstruction = tokenizer(x)
        first = tokenizer.quantizer.decode(made.quantized.indices[..., : self.levels])
        student = made.z + (first - made.z).detach()  # straight through, as the decoder's latents
        rate = tokenizer.signal.sample_rate or 0
        said = self.project(student)
        heard = [at_rate(one.features(x, rate), student.shape[1]) for one in self._teachers]
        terms = [self.loss(said, wanted) for wanted in heard]
        made.terms["semantic"] = torch.stack(terms).mean()
        return made
