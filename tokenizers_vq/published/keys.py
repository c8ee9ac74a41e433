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


def keep(state: Mapping[str, Tensor], prefix: str) -> State:
    """Return the tensors under ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def sizes(keys: Iterable[str], pattern: str) -> int:
    """Return how many different values the first group of ``pattern`` has among ``keys``."""
    matches = (re.match(pattern, key) for key in keys)
    return len({match.group(1) for match in matches if match is not None})
