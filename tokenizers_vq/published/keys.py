"""Renaming of state dicts as data: rules from the keys of a published file to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tokenizers_vq.errors import CheckpointError

State = dict[str, Tensor]
Target = str | Callable[[re.Match[str]], str]
Change = Callable[[Tensor], Tensor | Mapping[str, Tensor]]
# Where the two ways of torch to write weight normalisation put the gain and the direction.
GAINS = {
    "weight_g": ("weight_v", "weight"),
    "parametrizations.weight.original0": ("parametrizations.weight.original1", "weight"),
}


@dataclass(frozen=True)
class Rule:
    r"""Where the keys that match ``pattern`` whole go.

    Attributes:
        pattern: regular expression of whole upstream keys.
        target: our key, with the groups of the match as ``\1``, or a function of the match; None
            drops the tensor.
        change: what becomes of the tensor; a mapping makes several, keyed by what replaces ``{}``
            in ``target``.
        why: for dropped tensors, what they were for.
    """

    pattern: str
    target: Target | None
    change: Change | None = None
    why: str = ""


def drop(pattern: str, why: str) -> Rule:
    """Return a rule that leaves out keys, knowingly."""
    return Rule(pattern, None, why=why)


def rename(state: Mapping[str, Tensor], rules: Sequence[Rule], where: str) -> State:
    """Return ``state`` under our keys: the first rule whose pattern matches a whole key applies.

    Args:
        state: upstream tensors.
        rules: tried in this order.
        where: the name the messages start with.

    Raises:
        CheckpointError: no rule knows a key, or two keys lead to one of ours.
    """
    found: State = {}
    unknown = []
    for key, value in state.items():
        for rule in rules:
            match = re.fullmatch(rule.pattern, key)
            if match is not None:
                _place(found, rule, match, value, where)
                break
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"{where}: expected only keys of this family; got {len(unknown)} others (first: "
            f"{unknown[0]}). Is it a checkpoint of another family?"
        )
    return found


def _place(found: State, rule: Rule, match: re.Match[str], value: Tensor, where: str) -> None:
    if rule.target is None:
        return
    target = rule.target(match) if callable(rule.target) else match.expand(rule.target)
    changed = value if rule.change is None else rule.change(value)
    parts = changed if isinstance(changed, Mapping) else {"": changed}
    for part, tensor in parts.items():
        key = target.replace("{}", part)
        if key in found:
            raise CheckpointError(
                f"{where}: expected one tensor for {key}; got a second one, {match.string}. "
                "Import the file as it was published."
            )
        found[key] = tensor


def fold_weight_norm(state: Mapping[str, Tensor]) -> State:
    """Return ``state`` with every weight normalisation multiplied out.

    Salimans and Kingma 2016 (arXiv 1602.07868), equation 2: ``weight = g v / ||v||``, the norm over
    all dimensions but the first, which are the input channels of a transposed convolution. Both
    names that torch has given the parts are known: ``weight_g``, ``weight_v`` and
    ``parametrizations.weight.original0``, ``original1``. Other tensors stay as they are.

    Args:
        state: tensors by upstream key; a gain is ``(n, 1, ..., 1)``, its direction ``(n, ...)``.

    Raises:
        CheckpointError: a gain has no direction, a direction no gain, or they do not fit.
    """
    folded: State = {}
    for key, value in state.items():
        module, part = _gain_part(key)
        if part in GAINS:
            direction, weight = GAINS[part]
            folded[module + weight] = _multiplied(value, state.get(module + direction), key)
        elif part and not any(
            module + gain in state for gain, (other, _) in GAINS.items() if other == part
        ):
            raise CheckpointError(
                f"fold_weight_norm: expected the gain of {key}; got none. Import the file as it "
                "was published."
            )
        elif not part:
            folded[key] = value
    return folded


def _gain_part(key: str) -> tuple[str, str]:
    """Return ``key`` as the module it is in, with its dot, and the part of a normalised weight."""
    for gain, (direction, _) in GAINS.items():
        for part in (gain, direction):
            if key == part or key.endswith("." + part):
                return key.removesuffix(part), part
    return key, ""


def _multiplied(gain: Tensor, direction: Tensor | None, key: str) -> Tensor:
    if direction is None:
        raise CheckpointError(
            f"fold_weight_norm: expected the direction of {key}; got none. Import the file as it "
            "was published."
        )
    if gain.numel() != direction.shape[0]:
        raise CheckpointError(
            f"fold_weight_norm: expected a gain {key} for each of {direction.shape[0]}; got "
            f"{gain.numel()}. Import the file as it was published."
        )
    gain, direction = gain.float(), direction.float()  # files of half precision, too
    length: Tensor = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
    return gain.view_as(length) * direction / length


def keep(state: Mapping[str, Tensor], prefix: str) -> State:
    """Return the tensors under ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def sizes(keys: Iterable[str], pattern: str) -> int:
    """Return how many different values the first group of ``pattern`` has among ``keys``."""
    matches = (re.match(pattern, key) for key in keys)
    return len({match.group(1) for match in matches if match is not None})
