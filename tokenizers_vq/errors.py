"""The error types of the library, and the few sentences every room shares.

Form of every message: ``<Where>: expected <what>; got <what>. <What to do>.``
"""

from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import Tensor


class ShapeError(ValueError):
    """A tensor has another shape, rank or dtype than the operation takes."""


class ConfigError(ValueError):
    """A name, option or value in a configuration is not one that exists."""


class CheckpointError(RuntimeError):
    """A saved tokenizer is missing, incomplete, of another config, or was changed."""


class BitstreamError(ValueError):
    """A ``.tok`` file is truncated, damaged, or made by another tokenizer."""


class DataError(ValueError):
    """A data set is missing or holds nothing that can be used."""


class MissingExtraError(ImportError):
    """An optional package or weights file is needed and not there."""


def check_shape(x: object, dims: str, where: str, hint: str = "") -> None:
    """Raise ``ShapeError`` unless ``x`` matches ``dims``.

    Args:
        x: the tensor to check.
        dims: blank-separated dimensions; a number must match, a letter matches any size, and one
            ``*name`` matches any number of dimensions, e.g. ``"B 3 H W"`` or ``"B *grid 256"``.
        where: the name the message starts with.
        hint: a sentence that says what to do, appended to the message.

    Raises:
        ShapeError: the rank or a fixed dimension differs.
    """
    if not isinstance(x, Tensor):
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise ShapeError(
            f"{where}: expected a tensor ({_comma(dims)}); got {kind}. {hint}".rstrip()
        )
    names = dims.split()
    star = next((i for i, name in enumerate(names) if name.startswith("*")), None)
    if star is None:
        pairs = list(zip(names, x.shape, strict=False))
        fits = x.ndim == len(names)
    else:
        tail = len(names) - star - 1
        fits = x.ndim >= len(names) - 1
        pairs = list(zip(names[:star], x.shape, strict=False))
        if tail:
            pairs += list(zip(names[star + 1 :], x.shape[-tail:], strict=False))
    fits = fits and all(not name.isdigit() or int(name) == size for name, size in pairs)
    if not fits:
        got = tuple(x.shape)
        raise ShapeError(f"{where}: expected shape ({_comma(dims)}); got {got}. {hint}".rstrip())


def check_indices(indices: Tensor, sizes: tuple[int, ...], where: str) -> None:
    """Raise ``ShapeError`` unless ``indices (..., K)`` are int64 and inside their codebooks.

    Index -1 marks a masked or dropped position and is allowed.
    """
    if indices.dtype != torch.int64:
        raise ShapeError(f"{where}: expected int64 indices; got {indices.dtype}. Call .long().")
    check_shape(indices, f"*grid {len(sizes)}", where, "The last axis is the codebook axis K.")
    for k, size in enumerate(sizes):
        column = indices[..., k]
        bad = (column < -1) | (column >= size)
        if bool(bad.any()):
            worst = int(column[bad][0])
            raise ShapeError(f"{where}: index {worst} in codebook {k} is outside 0..{size - 1}.")


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> ConfigError:
    """Return the error for a name that no registry has; it lists the ones that exist."""
    return ConfigError(f"{kind}: there is no {name!r}; choose one of {', '.join(sorted(choices))}.")


def unknown_option(kind: str, name: str, option: str, choices: Iterable[str]) -> ConfigError:
    """Return the error for a misspelt option; it lists the real ones and the nearest one."""
    known = sorted(choices)
    near = get_close_matches(option, known, n=1)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(
        f"{kind} '{name}' has no option '{option}'; it takes {', '.join(known)}.{guess}"
    )


def _comma(dims: str) -> str:
    return ", ".join(dims.split())
