"""VAR's multi-scale tokenizer: VQGAN's network, tokens of ten grids from 1x1 to 16x16.

Reference:
    Tian et al., Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale
    Prediction, 2024, https://arxiv.org/abs/2404.02905, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.errors import CheckpointError, ConfigError
from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, drop, rename, sizes
from tokenizers_vq.published.vqgan_keys import LEAF, constructor, network, vqgan_rules
from tokenizers_vq.published.wrappers import agree, check_config

WHERE = "from_published('var')"
SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]  # of the published file
VALUES = (
    "vocab_size", "z_channels", "ch", "dropout", "beta", "using_znorm", "quant_conv_ks",
    "quant_resi", "share_quant_resi", "default_qresi_counts", "v_patch_nums", "test_mode",
)  # fmt: skip


def _split(qkv: Tensor) -> dict[str, Tensor]:
    return dict(zip("qkv", qkv.chunk(3), strict=True))


RULES = (
    drop(r"quantize\.ema_vocab_hit_SV", "how often each code was used at each scale"),
    drop(r"quantize\.beta", "a loss weight"),
    Rule(r"quantize\.embedding\.weight", "quantizer.inner.0.codebook"),
    Rule(rf"quantize\.quant_resi\.qresi_ls\.(\d+)\.{LEAF}", r"quantizer.phi.\1.\2"),
    Rule(rf"quantize\.quant_resi\.(\d+)\.{LEAF}", r"quantizer.phi.\1.\2"),
    Rule(rf"quantize\.quant_resi\.qresi\.{LEAF}", r"quantizer.phi.0.\1"),
    Rule(
        rf"(encoder\.down|decoder\.up)\.(\d+)\.attn\.(\d+)\.qkv\.{LEAF}",
        r"\1.\2.attn.\3.{}.\4",
        _split,
    ),
    Rule(rf"(encoder|decoder)\.mid\.attn_1\.qkv\.{LEAF}", r"\1.mid.1.{}.\2", _split),
    *vqgan_rules(),
)


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit; see ``Family.configure``.

    Raises:
        ConfigError: a constructor value that VAR does not have, or scales that the tensors need.
        CheckpointError: a constructor value that the tensors contradict.
    """
    check_config(given, VALUES, WHERE)
    ours = rename(state, RULES, WHERE)
    size, width = ours["quantizer.inner.0.codebook"].shape
    built = network(ours, width, WHERE)
    built["quantizer"] = _multi_scale(state, given, ours)
    kernel = built["encoder"]["conventions"]["latent_kernel"]
    found = {"vocab_size": size, "z_channels": width, "quant_conv_ks": kernel}
    agree(given, {**constructor(built), **found}, WHERE)
    return built


def _multi_scale(
    state: Mapping[str, Tensor], given: Mapping[str, Any], ours: Mapping[str, Tensor]
) -> dict[str, Any]:
    scales = list(given.get("v_patch_nums", SCALES))
    hits = state.get("quantize.ema_vocab_hit_SV")
    if hits is not None and hits.shape[0] != len(scales):
        if "v_patch_nums" in given:
            raise CheckpointError(
                f"{WHERE}: expected v_patch_nums of {hits.shape[0]} scales, as the tensors have "
                f"them; got {scales}. Pass those of this checkpoint."
            )
        raise ConfigError(
            f"{WHERE}: expected the constructor value 'v_patch_nums' of {hits.shape[0]} scales; "
            f"got {sorted(given)}. The weights alone do not determine it: pass it in config."
        )
    size, width = ours["quantizer.inner.0.codebook"].shape
    inner: dict[str, Any] = {"name": "vq", "codebook_size": size, "codebook_weight": 0.0}
    inner |= {"commitment_weight": 0.0, "restart_threshold": 0.0}
    if given.get("using_znorm", False):  # only the search looks at directions
        inner = {**inner, "name": "factorized", "code_dim": width}
    return {
        "name": "multi_scale",
        "scales": scales,
        "inner": inner,
        "phi": sizes(ours, r"quantizer\.phi\.(\d+)\."),
        "phi_ratio": abs(given.get("quant_resi", 0.5)),
        "commitment_weight": given.get("beta", 0.25),
    }


def check(state: Mapping[str, Tensor]) -> str | None:
    """Say what is there instead of a VAR, if it is no such."""
    if "encoder.mid.attn_1.q.weight" in state:
        return "one with q, k and v apart (families taming and ibq)"
    return None


FAMILY = Family(configure, lambda _: RULES, check=check)
