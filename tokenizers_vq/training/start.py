"""Beginning with the weights of a trained tokenizer: fine-tuning, and second stages of a recipe."""

from __future__ import annotations

from torch.nn import functional as F

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.quantizers.record import without_records
from tokenizers_vq.tokenizer import Tokenizer

WIDENED = "decoder.conv_in.weight"  # what noise enters a decoder by


def begin_with(tokenizer: Tokenizer, source: Tokenizer) -> None:
    """Copy the weights of ``source`` into ``tokenizer``, in place.

    Where the decoder of ``tokenizer`` sees more channels of noise, the weights of these begin at
    zero: it begins as the decoder it comes from.

    Args:
        tokenizer: of the same sizes as ``source``, but for the noise.
        source: a trained tokenizer.

    Raises:
        CheckpointError: a tensor of one is missing in the other or has another shape.
    """
    theirs = without_records(source.state_dict())
    channels = _noise(tokenizer) - _noise(source)
    if channels > 0:  # (C, D, 3, 3) with zeros for further inputs
        theirs[WIDENED] = F.pad(theirs[WIDENED], (0, 0, 0, 0, 0, channels))
    own = without_records(tokenizer.state_dict())
    differ = [
        key
        for key in {**own, **theirs}
        if key not in own or key not in theirs or own[key].shape != theirs[key].shape
    ]
    if differ:
        raise CheckpointError(
            f"start: expected a tokenizer of the same sizes; got {len(differ)} tensors that are "
            f"missing or of another shape (first: {differ[0]}). Use the backbone and the quantizer "
            "it was trained with."
        )
    tokenizer.load_state_dict({**tokenizer.state_dict(), **theirs})


def widen_for_noise(tokenizer: Tokenizer, noise_channels: int | None = None) -> Tokenizer:
    """Return a tokenizer with a generative decoder that begins as the one it comes from.

    The second stage of WeTok's recipe trains it with everything but the decoder frozen.

    Args:
        tokenizer: a trained one, whose decoder takes ``noise_channels``.
        noise_channels: of noise beside the latents; None for as many as latent channels.

    Raises:
        ConfigError: the tokenizer has no config, or its decoder takes no noise.

    Reference:
        Zhuang et al., WeTok, 2025, https://arxiv.org/abs/2508.05599 (generative decoding).
    """
    if not hasattr(tokenizer.decoder, "noise_channels") or not tokenizer.config:
        raise ConfigError(
            "widen_for_noise: expected a tokenizer from a config whose decoder takes "
            f"noise_channels; got {type(tokenizer.decoder).__name__}. Use a cnn2d decoder."
        )
    noise = tokenizer.decoder.dim if noise_channels is None else noise_channels
    decoder = {**tokenizer.config["decoder"], "noise_channels": noise}
    config = {**tokenizer.config, "decoder": decoder}
    wide = type(tokenizer).from_config(config, name=tokenizer.name)
    begin_with(wide, tokenizer)
    wide.encoder.requires_grad_(False)
    wide.quantizer.requires_grad_(False)
    return wide.train(tokenizer.training)


def _noise(tokenizer: Tokenizer) -> int:
    return int(getattr(tokenizer.decoder, "noise_channels", 0))
