"""Another head for a trained tokenizer, fitted to its latents: no gradient, minutes at most.

Reference:
    Wang et al., Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation,
    2025, https://arxiv.org/abs/2503.16430 (``token_bridge``);
    Zhang et al., Quantize-then-Rectify: Efficient VQ-VAE Training, 2025,
    https://arxiv.org/abs/2507.10547 (``per_position``).
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_vq.errors import ConfigError, DataError, check_shape
from tokenizers_vq.quantizers.base import Quantizer
from tokenizers_vq.tokenizer import Tokenizer

MAPS = ("project_in", "project_out")


@torch.no_grad()
def fit(tokenizer: Tokenizer, data: Iterable[Tensor], quantizer: Mapping[str, Any]) -> Tokenizer:
    """Return a tokenizer with the encoder and decoder of another and a head fitted to its latents.

    Nothing is trained. Made for a continuous autoencoder (head ``gaussian``): its linear maps to
    and from the bottleneck stay, and what lies between becomes tokens.

    Args:
        tokenizer: the trained one; it is not changed.
        data: signals ``(C, *S)`` or ``(B, C, *S)`` in the signal's range. They may differ in size,
            except for ``per_position``, which is for one grid.
        quantizer: the plain config of a head that is fitted: ``token_bridge``, ``per_position``, or
            ``rotated`` around the former. A ``token_bridge`` without ``channels`` gets as many as
            the bottleneck has.

    Returns:
        A tokenizer in evaluation that ``save`` writes, named after the head.

    Raises:
        ConfigError: the head is not one that is fitted, or its width is not the bottleneck's.
        DataError: there is no signal, or too few finite latents.
        ShapeError: a signal has another rank or number of channels, or latents have other grids
            than the head is for.
    """
    config = _completed(quantizer, tokenizer.quantizer)
    parts = {**tokenizer.config, "quantizer": config}
    new = Tokenizer.from_config(parts, name=f"{tokenizer.name}-{config['name']}").eval()
    head: Any = new.quantizer
    if not hasattr(head, "fit"):
        raise ConfigError(
            f"fit: expected a quantizer that is fitted to latents; got '{config['name']}'. "
            "Choose token_bridge or per_position, or train this one."
        )
    new.encoder.load_state_dict(tokenizer.encoder.state_dict())
    new.decoder.load_state_dict(tokenizer.decoder.state_dict())
    new.to(next(tokenizer.decoder.parameters()))
    _keep_maps(tokenizer.quantizer, new.quantizer)
    head.fit(_latents(new, data, whole=new.quantizer.on_grid))
    return new


def main_from_args(arguments: argparse.Namespace) -> None:
    """Fit a head as the command line says, and save the tokenizer that it makes.

    Raises:
        ConfigError: there is no such head or data set, or the head does not fit.
        CheckpointError: the tokenizer is missing or not what it says.
        DataError: the data set is empty.
    """
    from tokenizers_vq.configs import read_config
    from tokenizers_vq.evaluation.entry import dataset_from
    from tokenizers_vq.hub import load

    tokenizer = load(arguments.tokenizer).to(arguments.device)
    dataset, name = dataset_from(arguments.data)
    count = len(dataset.ids)
    limit = count if arguments.limit is None else min(arguments.limit, count)
    chosen = (dataset[count * k // limit] for k in range(limit))
    new = fit(tokenizer, chosen, read_config("quantizer", arguments.quantizer))
    folder = new.cpu().save(arguments.out)
    bits = new.quantizer.bits_per_position
    sys.stdout.write(
        f"{folder}: {new.name}, {bits:.2f} bits per position, fitted to {limit} items of {name}\n"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``tvq fit``."""
    parser.add_argument("tokenizer", help="name, folder or hf:org/repo")
    parser.add_argument("--quantizer", default="token_bridge", help="name in conf/quantizer")
    parser.add_argument("--data", required=True, help="folder of pictures, or a name in conf/data")
    parser.add_argument("--limit", type=int, default=None, help="look at that many items")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the tokenizer")


def _completed(quantizer: Mapping[str, Any], old: Quantizer) -> dict[str, Any]:
    """Return the config of the new head with what the old one decides."""
    config = dict(quantizer)
    if config.get("name") == "token_bridge":
        config.setdefault("channels", old.code_dim)
    if "inner" in config and isinstance(config["inner"], Mapping):
        config["inner"] = _completed(config["inner"], old)
    return config


def _keep_maps(old: Quantizer, new: Quantizer) -> None:
    """Give the new head the linear maps of the old one, to and from the bottleneck.

    Raises:
        ConfigError: only one of them has such maps, or they lead to another width.
    """
    theirs, ours = [
        [getattr(head, name) for name in MAPS] if head.dim != head.code_dim else []
        for head in (old, new)
    ]
    if new.on_grid:  # its codes have a width of their own, and there is no map
        ours = []
    if len(theirs) != len(ours) or (theirs and old.code_dim != new.code_dim):
        width = old.code_dim if theirs else old.dim
        raise ConfigError(
            f"fit: expected a quantizer on the {width} channels of {type(old).__name__}; got "
            f"{type(new).__name__} on {new.dim if new.on_grid else new.code_dim}. Set its "
            "channels, or train the autoencoder without maps to a narrower bottleneck."
        )
    for mine, other in zip(ours, theirs, strict=True):
        mine.load_state_dict(other.state_dict())


def _latents(tokenizer: Tokenizer, data: Iterable[Tensor], *, whole: bool) -> Tensor:
    """Return the latents ``(N, D)`` of all signals, or whole grids ``(B, *grid, D)``."""
    signal = tokenizer.signal
    dims = f"B {signal.channels} " + " ".join("THW"[-signal.axes :])
    anchor = next(tokenizer.decoder.parameters())
    found = []
    for item in data:
        x = item[None] if item.ndim == signal.axes + 1 else item
        check_shape(x, dims, "fit", "Give data of the tokenizer's kind.")
        z = tokenizer.encoder(tokenizer.encoder.frame(x.to(anchor)))
        found.append(z if whole else z.flatten(0, -2))
    if not found:
        raise DataError("fit: expected at least one signal; got none. Check the data.")
    grids = {tuple(z.shape[1:]) for z in found}
    if len(grids) > 1:
        raise DataError(
            f"fit: expected signals of one size for a head on whole grids; got {len(grids)} sizes "
            "of latents. Crop them."
        )
    return torch.cat(found)
