"""The recipe of SpeechTokenizer: the first codebooks learn what a frozen network hears."""

from pathlib import Path

from torch import Tensor, nn

from tokenizers_vq.errors import ConfigError, unknown_name
from tokenizers_vq.losses.distillation import LogMelTeacher, SpeechModel, Teacher, at_rate, d_axis
from tokenizers_vq.losses.distillation import t_axis as over_features
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
        teacher: ``log_mel`` (64 bands, no weights), or the folder of a ``SpeechModel``.
        levels: how many codebooks, the first ones, learn.
        axis: ``d``, the cosine of each feature over time, or ``t``, of each frame over features.

    Raises:
        ConfigError: another axis, or ``levels`` below 1.
        CheckpointError: there is no speech model in the folder.

    Reference:
        Zhang et al., SpeechTokenizer, 2023, https://arxiv.org/abs/2308.16692, section 3.2; with the
        mean of the layers of a speech model as the teacher also DM-Codec's speech guidance, Ahmed
        et al., 2024, https://arxiv.org/abs/2410.15017, section 3.2.
    """

    def __init__(
        self, dim: int, teacher: str | Path = "log_mel", levels: int = 1, axis: str = "d"
    ) -> None:
        super().__init__()
        if axis not in AXES:
            raise unknown_name("axis of distillation", axis, tuple(AXES))
        if levels < 1:
            raise ConfigError(
                f"semantic: expected levels of at least 1; got {levels}. SpeechTokenizer has 1."
            )
        made: Teacher = LogMelTeacher() if teacher == "log_mel" else SpeechModel(teacher)
        self._teacher = [made]  # in a list, so that it stays outside the module tree
        self.levels, self.loss = levels, AXES[axis]
        self.project = nn.Linear(dim, made.width)

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
        wanted = at_rate(self._teacher[0].features(x, rate), student.shape[1])
        made.terms["semantic"] = self.loss(self.project(student), wanted)
        return made
