"""Checkpoints of MoMask's residual motion tokenizer, of HumanML3D and KIT-ML.

Signals are standardised features; see ``published.t2m_gpt`` for their own units.

Reference:
    Guo et al., MoMask: Generative Masked Modeling of 3D Human Motions, 2023,
    https://arxiv.org/abs/2312.00063, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, sizes
from tokenizers_vq.published.motion_keys import STATISTICS, codes, network, network_rules
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('momask')"
CODEBOOK = r"quantizer\.layers\.(\d+)\.codebook"


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
    """
    size, width = state["quantizer.layers.0.codebook"].shape
    levels = sizes(state, CODEBOOK)
    agree(given, {"nb_code": size, "code_dim": width, "num_quantizers": levels}, WHERE)
    stage = {
        "name": "vq",
        "codebook_size": size,
        "codebook_update": "ema",
        "commitment_weight": 0.02,
        "sample_temperature": 0.5,
    }
    quantizer = {
        "name": "residual",
        "stage_dropout": 0.2,
        "stages": {"repeat": levels, "of": stage},
    }
    return {**network(state), "quantizer": quantizer}


def rules(config: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    return [Rule(CODEBOOK, r"quantizer.stages.\1.{}", codes), *network_rules(config)]


FAMILY = Family(configure, rules, fresh=(STATISTICS,))
