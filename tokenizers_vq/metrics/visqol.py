"""ViSQOL v3 in speech mode, by the package ``visqol-python`` with its lattice network.

Reference:
    Chinen et al., ViSQOL v3: An Open Source Production Ready Objective Speech and Audio Metric,
    2020, https://arxiv.org/abs/2004.09584.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from tokenizers_vq.metrics.speech import (
    INSTALL,
    Column,
    SpeechMetric,
    Unscorable,
    check_length,
    check_sound,
)

RUNTIME = "ai_edge_litert"


class ViSQOL(SpeechMetric):
    """MOS-LQO of speech mode per clip at 16 kHz, whole clip, mapped by the lattice network.

    Without the package's extra ``lattice`` it maps by a polynomial that over-rates by 0.4 to 1.2
    and only warns; that number is refused here. A clip needs voiced patches of half a second.
    """

    columns = (Column("visqol", "MOS", True),)
    packages = (("visqol", "visqol-python"),)
    chunking = "voiced patches of 20 frames, inside the package"

    def missing(self) -> str:
        """Return why ViSQOL cannot be computed: without the lattice runtime it is refused."""
        reason = super().missing()
        if not reason and find_spec(RUNTIME) is None:
            return f"package ai-edge-litert, ViSQOL's lattice runtime, not found ({INSTALL})"
        return reason

    def score(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return ``visqol``."""
        check_length(real, 8000)
        check_sound(original=real, reconstruction=fake)
        try:
            found = _api().measure_from_arrays(real.double().numpy(), fake.double().numpy(), 16000)
        except (RuntimeError, ValueError, IndexError) as error:
            raise Unscorable(f"ViSQOL failed ({str(error).splitlines()[0]:.60})") from error
        return {"visqol": float(found.moslqo)}

    def facts(self) -> dict[str, Any]:
        """Name the mapping."""
        return {"mode": "speech", "mapping": "lattice"}


@cache
def _api() -> Any:
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)
    return api
