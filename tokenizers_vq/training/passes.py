"""Training passes: what one training step runs in place of the plain forward of the tokenizer."""

from typing import Protocol

from torch import Tensor

from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.types import Reconstruction


class TrainingPass(Protocol):
    """Turns a batch into a reconstruction and into loss terms of the model.

    A part of a tokenizer that trains in its own way (rollouts, two forwards, a flow) has a method
    ``training_pass`` of this signature; one that any tokenizer can use is a class in
    ``registry.TRAINING_PASSES``. If it is an ``nn.Module``, its parameters train with the
    tokenizer and are in the checkpoint of the run, and are not published.
    """

    def __call__(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return what the objective sees.

        Args:
            tokenizer: what is trained; a part that calls its siblings finds them here.
            x: signals ``(B, C, *S)``.
            step: optimizer steps taken so far.
        """


class Plain:
    """The forward of the tokenizer."""

    def __call__(self, tokenizer: Tokenizer, x: Tensor, step: int) -> Reconstruction:
        """Return ``tokenizer(x)``."""
        made: Reconstruction = tokenizer(x)
        return made


def own_pass(tokenizer: Tokenizer) -> TrainingPass:
    """Return the ``training_pass`` of the decoder or else of the encoder, or else ``Plain``."""
    for part in (tokenizer.decoder, tokenizer.encoder):
        own: TrainingPass | None = getattr(part, "training_pass", None)
        if own is not None:
            return own
    return Plain()
