"""Training a part of a tokenizer while the rest stands still."""

from collections.abc import Sequence

from torch import nn

from tokenizers_vq.errors import unknown_name


def freeze_except(module: nn.Module, prefixes: Sequence[str]) -> None:
    """Take gradients from all parameters except those below ``prefixes``.

    Frozen parameters get no gradient, so that no optimizer holds them; see ``rest`` for the state
    of frozen modules.

    Args:
        module: the tokenizer.
        prefixes: names of modules or parameters, like ``decoder`` or ``decoder.head``; empty for
            all of it.

    Raises:
        ConfigError: nothing has one of the names.
    """
    names = {name for name, _ in module.named_modules() if name}
    names |= {name for name, _ in module.named_parameters()}
    for prefix in prefixes:
        if prefix not in names:
            raise unknown_name("trainable", prefix, names)
    if not prefixes:
        return
    for part in _frozen(module, prefixes):
        part.requires_grad_(False)  # modules may do more than their parameters, quantizers do
    for name, parameter in module.named_parameters():
        if not any(_below(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(False)


def rest(module: nn.Module, prefixes: Sequence[str]) -> None:
    """Put the modules without a trainable part in eval mode: no dropout, no running statistics."""
    for part in _frozen(module, prefixes) if prefixes else []:
        part.eval()


def _frozen(module: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """Return the modules that neither are below a prefix nor hold one."""
    return [
        part
        for name, part in module.named_modules()
        if name and not any(_below(name, prefix) or _below(prefix, name) for prefix in prefixes)
    ]


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
