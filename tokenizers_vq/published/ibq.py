"""IBQ: VQGAN's network with four blocks per level, codes chosen by inner product.

Reference:
    Shi et al., Scalable Image Tokenization with Index Backpropagation Quantization, 2024,
    https://arxiv.org/abs/2412.02692.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, rename
from tokenizers_vq.published.taming import NETWORK
from tokenizers_vq.published.vqgan_keys import constructor, network, vqgan_rules
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('ibq')"
VALUES = (
    "ddconfig", "n_embed", "embed_dim", "lossconfig", "ckpt_path", "ignore_keys", "image_key",
    "colorize_nlabels", "monitor", "learning_rate", "resume_lr", "remap", "sane_index_shape",
    "use_ema", "stage", "lr_drop_epoch", "lr_drop_rate", "warmup_epochs", "scheduler_type",
    "min_learning_rate", "gradient_clip_val", "l2_normalize", "quantizer_type", "use_entropy_loss",
    "entropy_temperature", "entropy_loss_ratio", "sample_minimization_weight",
    "batch_maximization_weight", "cosine_similarity", "beta", "token_factorization",
)  # fmt: skip


def rules() -> list[Rule]:
    """Return the rules of all IBQ checkpoints."""
    return [Rule(r"quantize\.embedding\.weight", "quantizer.codebook"), *vqgan_rules()]


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that IBQ does not have, or normalised codes.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, VALUES, WHERE)
    check_config(given.get("ddconfig", {}), NETWORK, f"{WHERE} ddconfig")
    for key in ("cosine_similarity", "l2_normalize"):
        if given.get(key):
            raise ConfigError(
                f"{WHERE}: expected codes chosen by inner product, as in all published files; got "
                f"{key} {given[key]!r}. Leave it out."
            )
    ours = rename(state, rules(), WHERE)
    size, width = ours["quantizer.codebook"].shape
    built = network(ours, width, WHERE)
    built["quantizer"] = {"name": "ibq", "codebook_size": size}
    agree(given, {"n_embed": size, "embed_dim": width}, WHERE)
    agree(given.get("ddconfig", {}), constructor(built), f"{WHERE} ddconfig")
    return built


FAMILY = Family(configure, lambda _: rules())
