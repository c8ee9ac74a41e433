"""Checkpoints of T2M-GPT's motion tokenizer, of HumanML3D and KIT-ML.

Signals are standardised features, as upstream. To have them in their own units, give both sides
the published ``Mean.npy`` and ``Std.npy``: ``tok.encoder.standardize.fit(mean, std)`` and the same
of the decoder.

Reference:
    Zhang et al., T2M-GPT: Generating Human Motion from Textual Descriptions with Discrete
    Representations, 2023, https://arxiv.org/abs/2301.06052, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenizers_vq.published.importing import Family
from tokenizers_vq.published.keys import Rule, State
from tokenizers_vq.published.motion_keys import STATISTICS, codes, network, network_rules
from tokenizers_vq.published.wrappers import agree

WHERE = "from_published('t2m_gpt')"
VALUES = {"nb_code": 0, "code_dim": 1, "output_emb_width": 1}


def prepare(state: Mapping[str, Tensor]) -> State:
    """Return ``state`` without the ``vqvae.`` that all keys begin with."""
    return {key.removeprefix("vqvae."): value for key, value in state.items()}


def configure(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a tokenizer that the tensors fit.

    Raises:
        CheckpointError: a constructor value that the tensors contradict.
    """
    table = state["quantizer.codebook"].shape
    agree(given, {name: table[axis] for name, axis in VALUES.items()}, WHERE)
    quantizer = {
        "name": "vq",
        "codebook_size": table[0],
        "codebook_update": "ema",
        "commitment_weight": 0.02,
    }
    return {**network(state), "quantizer": quantizer}


def rules(config: Mapping[str, Any]) -> list[Rule]:
    """Return the rules from upstream keys to those of a tokenizer."""
    return [Rule(r"quantizer\.codebook", "quantizer.{}", codes), *network_rules(config)]


FAMILY = Family(configure, rules, fresh=(STATISTICS,), prepare=prepare)
