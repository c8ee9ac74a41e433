"""What a saved state says about the head that wrote it, so that no other head reads it wrongly.

A head made of plain numbers (levels, bits, a scale, an order) has no weights that would not fit
into a differently configured one: the same tokens would come to mean something else without a
word. So the state of every head holds its conventions, as the bytes of a JSON mapping: a tensor
like all others, which safetensors can store.
"""

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from tokenizers_vq.errors import CheckpointError

KEY = "_extra_state"  # the name under which torch keeps what is neither parameter nor buffer


class Recorded(nn.Module):
    """A module whose state says how it was configured, and that refuses another's.

    Attributes:
        conventions: names of the attributes that decide what codes and indices mean. What only
            changes training (loss weights, dropout, the estimator) does not belong here: it may
            differ from one training to the next.
    """

    conventions: tuple[str, ...] = ()

    def get_extra_state(self) -> Tensor:
        """Return the conventions as uint8, the bytes of a JSON mapping."""
        return torch.tensor(list(json.dumps(self._record()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Take what ``_load_from_state_dict`` has compared already: there is nothing to set."""

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Compare before a number is copied; a state from before there were records has none."""
        key = prefix + KEY
        if key in state_dict:
            self._compare(state_dict[key], key)
        else:
            state_dict = {**state_dict, key: self.get_extra_state()}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _record(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.conventions}
        record: dict[str, Any] = json.loads(json.dumps({"head": type(self).__name__} | own))
        return record

    def _compare(self, state: Tensor, key: str) -> None:
        own, name = self._record(), type(self).__name__
        try:
            theirs = json.loads(bytes(state.tolist()))
            differ = [what for what in {**own, **theirs} if own.get(what) != theirs.get(what)]
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{name}: expected a record of conventions under '{key}'; got something else. "
                "The file is damaged."
            ) from error
        if differ:
            expected = ", ".join(f"{what}={_short(own.get(what))}" for what in differ)
            found = ", ".join(f"{what}={_short(theirs.get(what))}" for what in differ)
            raise CheckpointError(
                f"{name}: expected a state with {expected}; got one with {found}. Build the head "
                f"as it was saved, or delete '{key}' from the state to load it all the same."
            )


def without_records(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict without the records of its heads: what only weights are compared by."""
    return {name: value for name, value in state.items() if not is_record(name)}


def is_record(name: str) -> bool:
    """Whether an entry of a state dict is the record of a head."""
    return name.rpartition(".")[2] == KEY


def _short(value: Any) -> str:
    """Return a value in a few words: equal numbers in a row are counted."""
    if not isinstance(value, list):
        return repr(value)
    runs = [(item, len(list(same))) for item, same in groupby(value)]
    parts = [repr(item) if count == 1 else f"{count} x {item!r}" for item, count in runs]
    return f"[{', '.join(parts)}]"[:80]
