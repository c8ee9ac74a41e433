"""Continuous autoencoders of the latent diffusion line: KL-f16 with 16 channels (MAR), KL-f4, -f8.

VQGAN's network with a normal posterior in place of codes. They come with the head ``gaussian`` and
the encoder's mean; what predicts the variance is left out. ``tvq fit`` then puts ``token_bridge``
or ``revq`` in the head's place.

Reference:
    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022,
    https://arxiv.org/abs/2112.10752, appendix E; Li et al., Autoregressive Image Generation without
    Vector Quantization, 2024, https://arxiv.org/abs/2406.11838, section 5 (its KL-16, whose decoder
    has attention in the middle alone).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family, Weights
from tokenizers_vq.published.keys import Rule, drop, rename
from tokenizers_vq.published.taming import NETWORK
from tokenizers_vq.published.vqgan_keys import LEAF, constructor, network, vqgan_rules
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('kl_vae')"
VALUES = (
    "ddconfig", "embed_dim", "lossconfig", "ckpt_path", "ignore_keys", "image_key", "monitor",
    "colorize_nlabels", "learning_rate", "scale_factor", "ch_mult", "use_variational",
)  # fmt: skip
FRESH = (r"quantizer\.log_variance\.(weight|bias)",)


def _mean(moments: Tensor) -> Tensor:
    """Return the first half of the rows, those of the posterior's mean."""
    return moments[: len(moments) // 2]


RULES = (
    Rule(rf"quant_conv\.{LEAF}", r"encoder.quant_conv.\1", _mean),
    drop(r"loss\.logvar|logvar", "weighs the loss of pixels"),
    *vqgan_rules(),
)


def configure(state: Weights, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that these autoencoders do not have.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, VALUES, WHERE)
    check_config(given.get("ddconfig", {}), NETWORK, f"{WHERE} ddconfig")
    ours = rename(state, RULES, WHERE)
    channels = ours["decoder.post_quant_conv.weight"].shape[1]
    built = network(ours, channels, WHERE)
    found = constructor(built)
    built["encoder"]["z_channels"] = ours["encoder.conv_out.weight"].shape[0]  # mean and variance
    built["quantizer"] = {"name": "gaussian"}
    agree(given, {**found, "embed_dim": channels, "use_variational": True}, WHERE)
    agree(given.get("ddconfig", {}), {**found, "double_z": True}, f"{WHERE} ddconfig")
    return built


def check(state: Weights) -> str | None:
    """Say what is there instead of a continuous autoencoder, if it is no such."""
    if "quantize.embedding.weight" in state or "quantize.embed.weight" in state:
        return "one with a table of codes (family taming)"
    moments, back = state.get("quant_conv.weight"), state.get("post_quant_conv.weight")
    if moments is not None and back is not None and moments.shape[0] != 2 * back.shape[1]:
        return "one whose encoder gives no variance"
    return None


FAMILY = Family(configure, lambda _: RULES, FRESH, check)
