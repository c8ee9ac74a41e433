"""The heads that the contract is tested on: every file ``heads_*.py`` here adds a table CASES."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

D = 6
CONTINUOUS = {"gaussian"}  # without codes, so without a contract: tests/quantizers has theirs


@dataclass(frozen=True)
class Case:
    """A head for latents of width D, and which optional promises it makes.

    Attributes:
        config: plain data for ``registry.build``.
        fixed_point: encoding decoded indices gives them back, for all indices.
        identity: the gradient to the latent is exactly that at the output.
        graph: test it as a compiled and exported graph; tracing costs seconds, so one of a kind.
        noisy: a training forward draws random numbers; it equals decoding in evaluation only.
        soft: codes that were not chosen get a gradient through the output.
        masks: forward takes a mask.
        sealed: no gradient reaches the latents: the head is made for those of a finished encoder.
        item_shape: grid of latents that the head is bound to; None for any.
    """

    config: dict[str, Any]
    fixed_point: bool = False
    identity: bool = False
    graph: bool = False
    noisy: bool = False
    soft: bool = False
    masks: bool = True
    sealed: bool = False
    item_shape: tuple[int, ...] | None = None


def all_cases() -> dict[str, Case]:
    """Return the cases of all tables, by name."""
    cases: dict[str, Case] = {}
    for path in sorted(Path(__file__).parent.glob("heads_*.py")):
        for name, case in import_module(path.stem).CASES.items():
            if name in cases:
                raise ValueError(f"{path.name}: a second case named {name}")
            cases[name] = case
    return cases
