"""TiTok: two-stage models of 32 to 128 tokens, and the later single-stage ones, also continuous.

Reference:
    Yu et al., An Image is Worth 32 Tokens for Reconstruction and Generation, 2024,
    https://arxiv.org/abs/2406.07550; the single-stage models are those of Kim et al., 2025,
    https://arxiv.org/abs/2501.07730, without text.
    Continuous models (``quantize_mode: vae``) come with the head ``gaussian`` and the encoder's
    mean; what predicts the variance is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers_vq.published import titok_keys
from tokenizers_vq.published.importing import Family, Weights

FRESH = (r"quantizer\.log_variance\.(weight|bias)",)  # of continuous models, see above


def configure(state: Weights, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the tokenizer that ``state`` belongs to."""
    return titok_keys.configure(state, config, "from_published('titok')")


def check(state: Weights) -> str | None:
    """Say what is there instead of a TiTok, if it is no such."""
    if titok_keys.TEXT in state:
        return "one whose decoder reads text; its family is ta_titok"
    return None


FAMILY = Family(configure, titok_keys.rules, FRESH, check)
