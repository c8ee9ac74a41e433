"""TA-TiTok: TiTok in one stage, whose decoder also reads a caption.

Reference:
    Kim et al., Democratizing Text-to-Image Masked Generative Models with Compact Text-Aware
    One-Dimensional Tokens, 2025, https://arxiv.org/abs/2501.07730.
    Continuous models come with the head ``gaussian`` and the encoder's mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers_vq.published import titok_keys
from tokenizers_vq.published.importing import Family, Weights
from tokenizers_vq.published.titok import FRESH


def configure(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the tokenizer that ``state`` belongs to."""
    return titok_keys.configure(state, config, "from_published('ta_titok')")


def check(state: Weights) -> str | None:
    """Say what is there instead of a TA-TiTok, if it is no such."""
    if titok_keys.TEXT not in state:
        return "one whose decoder reads no text; its family may be titok"
    return None


FAMILY = Family(configure, titok_keys.rules, FRESH, check)
