"""One-D-Piece: TiTok whose 256 tokens can be cut off at any length.

Reference:
    Miwa et al., One-D-Piece: Image Tokenizer Meets Quality-Controllable Compression, 2025,
    https://arxiv.org/abs/2501.10064.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers_vq.published import titok_keys
from tokenizers_vq.published.importing import Family, Weights


def configure(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the tokenizer that ``state`` belongs to."""
    return titok_keys.configure(state, config, "from_published('one_d_piece')", prefixes=True)


FAMILY = Family(configure, titok_keys.rules)
