"""VQGAN, with a table of codes or with Gumbel scores; also the latent diffusion models' VQ-f4/f8.

Reference:
    Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2021,
    https://arxiv.org/abs/2012.09841; Rombach et al., High-Resolution Image Synthesis with Latent
    Diffusion Models, 2022, https://arxiv.org/abs/2112.10752, appendix E.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, rename
from tokenizers_vq.published.vqgan_keys import constructor, network, vqgan_rules
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('taming')"
NETWORK = (
    "double_z", "z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult",
    "num_res_blocks", "attn_resolutions", "dropout", "resamp_with_conv", "give_pre_end",
    "attn_type", "tanh_out", "use_linear_attn",
)  # fmt: skip
VALUES = (
    "ddconfig", "n_embed", "embed_dim", "lossconfig", "ckpt_path", "ignore_keys", "image_key",
    "colorize_nlabels", "monitor", "remap", "sane_index_shape", "kl_weight", "kl_loss_weight",
    "temperature_scheduler_config", "use_vqinterface", "straight_through", "use_ema", "beta",
    "legacy", "batch_resize_range", "scheduler_config", "lr_g_factor", "learning_rate",
)  # fmt: skip


def rules() -> list[Rule]:
    """Return the rules of all VQGAN checkpoints."""
    return [
        Rule(r"quantize\.(?:embedding|embed)\.weight", "quantizer.codebook"),
        Rule(r"quantize\.proj\.weight", "quantizer.scores.weight", lambda w: w.flatten(1)),
        Rule(r"quantize\.proj\.bias", "quantizer.scores.bias"),
        *vqgan_rules(),
    ]


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that VQGAN does not have, or tokens remapped by a file.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, VALUES, WHERE)
    check_config(given.get("ddconfig", {}), NETWORK, f"{WHERE} ddconfig")
    if given.get("remap"):
        raise ConfigError(
            f"{WHERE}: expected indices of the whole codebook; got remap {given['remap']!r}. "
            "Import without it and select the indices yourself."
        )
    ours = rename(state, rules(), WHERE)
    size, width = ours["quantizer.codebook"].shape
    built = network(ours, width, WHERE)
    built["quantizer"] = _gumbel(size) if "quantizer.scores.weight" in ours else _vq(size, given)
    agree(given, {"n_embed": size, "embed_dim": width}, WHERE)
    agree(given.get("ddconfig", {}), constructor(built), f"{WHERE} ddconfig")
    return built


def _vq(size: int, given: Mapping[str, Any]) -> dict[str, Any]:
    beta = given.get("beta", 0.25)
    # The released training has the smaller weight on the codebook term ("legacy").
    weights = (1.0, beta) if given.get("legacy", True) else (beta, 1.0)
    return {
        "name": "vq",
        "codebook_size": size,
        "commitment_weight": weights[0],
        "codebook_weight": weights[1],
        "restart_threshold": 0.0,
    }


def _gumbel(size: int) -> dict[str, Any]:
    return {"name": "gumbel", "codebook_size": size}


FAMILY = Family(configure, lambda _: rules())
